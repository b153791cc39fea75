"""Applies a plan: writes a folder with the compressed model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.compressors.bank.bank import one_thread
from paredown.compressors.bank.encoding import encode_site
from paredown.compressors.model.assemble import reduced_config
from paredown.compressors.model.dropped_parts import check_places
from paredown.compressors.original.checkpoint import config_of, config_sha256, resolve
from paredown.compressors.original.find_sites import inventory_of
from paredown.compressors.original.lazy_weights import original_weights
from paredown.compressors.original.origin import Origin
from paredown.deploy.card import model_card
from paredown.deploy.folder import MANIFEST, check_folder, replaced
from paredown.deploy.formats import formats, write_json
from paredown.deploy.formats.shards import SHARD_BYTES
from paredown.deploy.header import read_header
from paredown.deploy.scored import Written
from paredown.space.choice import Choice
from paredown.space.errors import OutputError, VerificationError
from paredown.space.plan import Plan
from paredown.space.plan_file import PlanFile
from paredown.space.site import Inventory, Site
from paredown.space.statistics import StatisticsOf
from paredown.space.system.interruption import stop_if_asked
from paredown.space.targets.target import targets
from paredown.space.tensors import total_bytes

COPIED = (
    "tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model", "chat_template*",
    "generation_config.json",
)  # fmt: skip
"""Files of the original that are copied unchanged, as glob patterns."""

TensorsOf = Callable[[Site, Choice], Mapping[str, Tensor] | None]
"""Stored tensors of a compressed site; None if they are not available."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """Result of applying a plan.

    Attributes:
        folder: Folder that was written.
        size_bytes: Tensor bytes, read back from the files' headers.
        predicted_bytes: Tensor bytes that the plan predicts; equal to ``size_bytes``.
        original_bytes: Tensor bytes of the original as stored.
        header_bytes: Bytes of the files' headers, which count towards no budget.
        other_texts: True if it was calibrated on other texts than the plan was measured with.
        differences: Reasons why its tensors differ from those that the plan was measured with; empty if they are equal
            or the plan does not record them.
    """

    folder: Path
    size_bytes: int
    predicted_bytes: int
    original_bytes: int
    header_bytes: int
    other_texts: bool = False
    differences: tuple[str, ...] = ()


def apply_plan(
    plan_file: PlanFile,
    model: str | Path,
    out: str | Path,
    tensors_of: TensorsOf | None = None,
    statistics: StatisticsOf | None = None,
    shard_bytes: int = SHARD_BYTES,
    *,
    other_texts: bool = False,
    origin: Origin | None = None,
) -> Applied:
    """Writes the compressed model with its plan, metrics and card, atomically.

    Sites are read, compressed and written one by one: memory holds one site at a time, however large the model is.

    Args:
        plan_file: The plan.
        model: Folder or hub name of the original: the model that the plan was made on, or a fine-tune of it.
        out: Folder to write; replaced if paredown wrote it.
        tensors_of: Source of ready compressed sites, such as a bank; sites are encoded here if it is None or returns
            None.
        statistics: Input statistics by module name, for calibrated choices that are encoded here.
        shard_bytes: Upper bound on the tensor bytes of a file; a smaller model is one file.
        other_texts: True if calibrated choices saw other texts than the plan was measured with.
        origin: Origin of the model; by default it is computed here, which reads all weights once more.

    Raises:
        CheckpointError: If the original is missing, incomplete or already compressed.
        PlanError: If the plan does not fit it; no weight was touched.
        OutputError: If the folder was not written by paredown or cannot be written; it is left unchanged.
        VerificationError: If the written bytes differ from the plan's, or the tensors differ from the scored ones
            although weights, configuration, texts, versions and machine are the same.
    """
    source, out, target = resolve(str(model)), Path(out), targets[plan_file.target]
    config = config_of(source)
    inventory = inventory_of(source, config, target.ties)
    plan = plan_file.plan_for(inventory)
    _check_plan(plan_file, source, config, inventory, plan)
    check_folder(out)
    if out.resolve() == source.resolve():
        raise OutputError(f"{out} is the original; choose another folder")
    written = Written(plan_file.records)
    tensors = encoded_tensors(inventory, plan, original_weights(source, config), tensors_of, statistics, written)
    with replaced(out) as folder:
        formats[target.format].write(
            folder, config=config, inventory=inventory, plan=plan, tensors=tensors, shard_bytes=shard_bytes
        )
        size, header = _check_bytes(folder, inventory, plan)
        records = (origin or Origin.of(source, config)).records(written.sha256)
        applied = Applied(
            folder=out,
            size_bytes=size,
            predicted_bytes=plan.size_bytes(inventory),
            original_bytes=inventory.original_bytes,
            header_bytes=header,
            other_texts=other_texts,
            differences=tuple(written.compare(records, other_texts=other_texts)),
        )
        _write_beside(folder, source, plan_file.model_copy(update={"records": records}), inventory, applied)
    return applied


def _check_plan(plan_file: PlanFile, source: Path, config: Any, inventory: Inventory, plan: Plan) -> None:
    """Checks a plan against the original, before any weight is read.

    Raises:
        PlanError: If the architecture cannot run without the blocks that the plan drops.
        VerificationError: If the plan file was made on this model and states other bytes than its choices take.
    """
    predicted = plan.size_bytes(inventory)
    if config_sha256(source) == plan_file.base_model.config_sha256 and predicted != plan_file.size_bytes:
        raise VerificationError(
            f"the plan file says {plan_file.size_bytes} bytes, but its choices take {predicted}; "
            f"set size_bytes to {predicted}"
        )
    reduced_config(config, inventory, plan.dropped(inventory))
    check_places(config, inventory, plan)


def encoded(
    inventory: Inventory,
    plan: Plan,
    parameters: Mapping[str, Tensor],
    tensors_of: TensorsOf | None = None,
    statistics: StatisticsOf | None = None,
) -> dict[str, Tensor]:
    """Every tensor of the plan's layout, all in memory; ``parameters``, the original's, are not modified."""
    return dict(encoded_tensors(inventory, plan, parameters, tensors_of, statistics))


@torch.no_grad()
def encoded_tensors(
    inventory: Inventory,
    plan: Plan,
    parameters: Mapping[str, Tensor],
    tensors_of: TensorsOf | None,
    statistics: StatisticsOf | None,
    written: Written | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the plan's layout, one by one.

    A site is compressed when its first tensor is taken; ``written`` then records its digest.
    """
    done: set[str] = set()
    for site, choice in plan.decided(inventory):
        stop_if_asked()
        ready = tensors_of(site, choice) if tensors_of else None
        if ready is None:
            with one_thread():  # as in the bank: multi-threaded sums may differ in the last bits
                tensors = encode_site(site, choice, parameters, statistics)
        else:
            tensors = dict(ready)
        if written:
            written.add(site, choice, tensors)
        done |= tensors.keys()
        yield from tensors.items()
    for name, spec in plan.layout(inventory).items():
        if name not in done:
            yield name, parameters[name].detach().to(getattr(torch, spec.dtype)).contiguous()


def _check_bytes(folder: Path, inventory: Inventory, plan: Plan) -> tuple[int, int]:
    """Tensor bytes and header bytes of a folder.

    Raises:
        VerificationError: If the tensor bytes differ from the plan's.
    """
    found, header = read_header(folder)
    size, predicted = total_bytes(found), plan.size_bytes(inventory)
    if size != predicted or sorted(s.size_bytes for s in found.values()) != sorted(
        s.size_bytes for s in plan.layout(inventory).values()
    ):
        raise VerificationError(
            f"{size} tensor bytes were written, but the plan says {predicted}; report this as a bug"
        )
    return size, header


def _write_beside(folder: Path, source: Path, plan_file: PlanFile, inventory: Inventory, applied: Applied) -> None:
    for pattern in COPIED:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    plan_file.write(folder / "plan.yaml")
    metrics: dict[str, Any] = {
        "target": plan_file.target,
        "size": {
            "unit": "bytes",
            "tensors": applied.size_bytes,
            "predicted": applied.predicted_bytes,
            "original": applied.original_bytes,
            "header": applied.header_bytes,
            "share_of_original": applied.size_bytes / applied.original_bytes,
            "bits_per_weight": 8 * applied.size_bytes / inventory.parameters,
        },
        "quality": plan_file.quality,
        "latency": plan_file.latency,
        "compared_with": plan_file.compared_with,
    }
    (folder / "README.md").write_text(model_card(plan_file, metrics), encoding="utf-8")
    files = sorted({path.name for path in folder.iterdir()} | {MANIFEST})
    write_json(folder / MANIFEST, metrics | {"files": files})
