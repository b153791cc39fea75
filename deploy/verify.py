"""Verifies in a fresh process that a written model is the one that was scored."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.compressors.bank.encoding import decode_site
from paredown.compressors.model.assemble import reduced_config
from paredown.compressors.original.checkpoint import config_of, load_original, parameters_of, resolve
from paredown.compressors.original.find_sites import blocks_of, inventory_of
from paredown.deploy import verify_process
from paredown.deploy.apply import TensorsOf, encoded
from paredown.deploy.engines import engines
from paredown.deploy.engines.transformers import TorchModel
from paredown.deploy.folder import put_back
from paredown.deploy.formats import Format, formats
from paredown.deploy.header import read_header
from paredown.deploy.scored import check_digests
from paredown.space.errors import VerificationError
from paredown.space.plan import Plan
from paredown.space.plan_file import PlanFile
from paredown.space.site import Inventory
from paredown.space.system import child
from paredown.space.system.temporary import system_folder
from paredown.space.targets.target import targets
from paredown.space.tensors import total_bytes

TOLERANCE = 1e-4
"""Upper bound on the difference of logits in float32, as a share of the largest logit."""

FAST_TOLERANCE = 0.1
"""The same bound for the bfloat16 kernels.

They round activations to eight bits of mantissa in every layer.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Result of the check in a fresh process.

    A difference is the largest absolute difference over the largest absolute value.

    Attributes:
        folder: The compressed model.
        size_bytes: Tensor bytes, equal to the plan's.
        header_bytes: Bytes of the files' headers.
        difference: Logits (encoders: last hidden states) in float32 against the scored model's.
        incremental_difference: Cached decoding against the full pass, in float32; None for encoders.
        fast_difference: Logits of the bfloat16 load against the scored model's in float32.
        tokens: Number of tokens that were run.
    """

    folder: Path
    size_bytes: int
    header_bytes: int
    difference: float
    incremental_difference: float | None
    fast_difference: float
    tokens: int


def verify(
    folder: str | Path,
    original: str | Path,
    *,
    tensors_of: TensorsOf | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Verified:
    """Checks bytes, keys, logits and cached decoding of a compressed model.

    Args:
        folder: Folder that ``apply`` wrote.
        original: The model that the plan was applied to.
        tensors_of: Source of the scored model's sites, such as a bank. None encodes the original again, which gives the
            same codes on the same machine.
        tolerance: Upper bound on the float32 differences.
        seed: Seed of the tokens that are run through both models: 2 sequences of at most 48.

    Raises:
        CheckpointError: If the original cannot be read.
        PlanError: If the folder's plan does not fit the original.
        VerificationError: If anything differs; the message says what, and by how much.
    """
    folder, source = put_back(Path(folder)), resolve(str(original))
    plan_file = PlanFile.read(folder / "plan.yaml")
    config = config_of(source)
    target = targets[plan_file.target]
    inventory = inventory_of(source, config, target.ties)
    plan, files = plan_file.plan_for(inventory), formats[target.format]
    header = check_stored(folder, inventory, plan, files)
    if plan_file.records:
        check_digests(folder, inventory, plan, files, plan_file.records)
    inputs = _inputs(config, seed)
    with torch.no_grad():
        model = load_original(source, config)
        model = scored_model(model, inventory, plan, encoded(inventory, plan, parameters_of(model), tensors_of))
        expected = TorchModel(model, causal=inventory.causal).outputs(inputs).float()
        del model
    engine = engines[target.engine]
    found, report = _fresh_process(folder, inputs, engine.__file__, causal=inventory.causal)
    for kind in ("missing", "unexpected"):
        if report[kind]:
            raise VerificationError(
                f"{folder}: {kind} keys on loading: {', '.join(report[kind][:3])}; apply the plan again"
            )
    if report["imported_paredown"] and not engine.NEEDS_PAREDOWN:
        raise VerificationError(f"loading {folder} imported paredown; engine {target.engine} must load without it")
    verified = Verified(
        folder=folder,
        size_bytes=plan.size_bytes(inventory),
        header_bytes=header,
        difference=_difference(found["float32"], expected),
        incremental_difference=_difference(found["incremental"], found["float32"]) if inventory.causal else None,
        fast_difference=_difference(found["bfloat16"], expected),
        tokens=inputs.numel(),
    )
    _check(verified, tolerance)
    return verified


def check_stored(folder: Path, inventory: Inventory, plan: Plan, files: Format) -> int:
    """Header bytes of the folder, after checking its tensors against the plan.

    Raises:
        VerificationError: If a tensor differs in name, type, shape or bytes.
    """
    found, header = read_header(folder)
    expected = files.layout(inventory, plan)
    if found != expected:
        wrong = min(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise VerificationError(
            f"{folder} holds {total_bytes(found)} tensor bytes, the plan says {total_bytes(expected)}; "
            "first difference: "
            f"{wrong} is {found.get(wrong, 'missing')}, expected {expected.get(wrong, 'nothing')}; apply the plan again"
        )
    return header


def scored_model(model: Any, inventory: Inventory, plan: Plan, tensors: dict[str, Tensor]) -> Any:
    """The original in float32 with the decoded weights of the plan's tensors, and without dropped blocks.

    ``model`` is modified in place and returned.
    """
    for site, choice in plan.decided(inventory):
        for name, value in decode_site(site, choice, tensors).items():
            module, _, attribute = name.rpartition(".")
            getattr(model.get_submodule(module), attribute).data = value.clone()
        if site.structured:
            for member in site.members:
                layer = model.get_submodule(member.module)
                if member.transposed:
                    layer.nf = layer.weight.shape[1]
    dropped = plan.dropped(inventory)
    reduced = reduced_config(model.config, inventory, dropped)
    _, blocks = blocks_of(model)
    for index in sorted(dropped, reverse=True):
        del blocks[index]
    for key, value in vars(reduced).items() if dropped else ():
        if isinstance(value, list):  # some models look up a layer's type by its index
            setattr(model.config, key, value)
    return model


def _inputs(config: Any, seed: int) -> Tensor:
    text = config.get_text_config()
    length = min(48, (getattr(text, "max_position_embeddings", None) or 48) - 4)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(min(4, text.vocab_size - 1), text.vocab_size, (2, length), generator=generator)


def _fresh_process(
    folder: Path, inputs: Tensor, engine: str, *, causal: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with system_folder("verify") as work:
        save_file({"input_ids": inputs}, work / "inputs.safetensors")
        program = Path(verify_process.__file__)  # run by path: neither the package nor its folder is on sys.path
        arguments = [str(folder.absolute()), str(work), engine, "causal" if causal else "encoder"]
        environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        run = child.finished(program, *arguments, environment=environment)
        if run.returncode:
            reason = next(
                (line for line in reversed(run.stderr.strip().splitlines()) if line.strip()),
                f"exit code {run.returncode}",
            )
            raise VerificationError(f"{folder} does not load and run in a fresh process: {reason}")
        return load_file(work / "outputs.safetensors"), json.loads((work / "report.json").read_text())


def _difference(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        raise VerificationError(
            f"the compressed model gives shape {tuple(found.shape)}, expected {tuple(expected.shape)}; apply it again"
        )
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny))


def _check(verified: Verified, tolerance: float) -> None:
    limits = (
        ("logits in float32 differ from the scored ones", verified.difference, tolerance),
        ("cached decoding differs from the full pass", verified.incremental_difference, tolerance),
        ("logits of the bfloat16 load differ from the scored ones", verified.fast_difference, FAST_TOLERANCE),
    )
    for text, difference, limit in limits:
        if difference is not None and not difference <= limit:  # written so that NaN fails too
            raise VerificationError(
                f"{verified.folder}: {text} by {difference:.2g} of the largest value; at most {limit:.2g} is allowed"
            )
