"""Loads compressed model folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PreTrainedModel

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.compressors.model.assemble import assemble
from paredown.compressors.original.checkpoint import model_class, shards, skeleton
from paredown.compressors.original.find_sites import walk
from paredown.deploy.folder import put_back
from paredown.deploy.formats.paredown import LAYOUT, STEM
from paredown.space.choice import parse_choice
from paredown.space.errors import CheckpointError
from paredown.space.plan import Plan
from paredown.space.plan_file import regrouped
from paredown.space.site import Inventory
from paredown.space.targets.paredown import PAREDOWN
from paredown.space.tensors import TensorSpec


def load(folder: str | Path, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    """A compressed model as a transformers model, with ``generate``.

    Args:
        folder: Folder that ``apply`` wrote.
        dtype: bfloat16 uses the fast CPU kernels; float32 computes exactly as the plan was scored.

    Raises:
        CheckpointError: If the folder is not such a model, is truncated, or has a missing or unexpected tensor.
    """
    folder = put_back(Path(folder))
    if dtype not in (torch.bfloat16, torch.float32):
        raise CheckpointError(f"a compressed model loads in bfloat16 or float32, got {dtype}; use one of them")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json; give the folder that `paredown apply` wrote")
    model = _load_own(folder, dtype) if (folder / "paredown.json").is_file() else _load_plain(folder, dtype)
    if model.can_generate() and (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.name_or_path = str(folder)
    model.requires_grad_(False)
    model.train(False)
    return model


def stored_plan(folder: Path, config: Any) -> tuple[Inventory, Plan]:
    """The original's inventory and the plan, from a folder in paredown's own layout.

    Raises:
        CheckpointError: If ``paredown.json`` is damaged or of a newer layout.
    """
    path = folder / "paredown.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        layout, default, dtypes, choices = (values[key] for key in ("layout", "dtype", "dtypes", "choices"))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); apply the plan again") from None
    if layout != LAYOUT:
        raise CheckpointError(
            f"{path} has layout {layout}, but this version of paredown reads layout {LAYOUT}; "
            "install the version that wrote it"
        )
    stored = {name: TensorSpec(dtype, ()) for name, dtype in dtypes.items()}
    inventory = walk(skeleton(config), stored, default, PAREDOWN.ties)
    plan = Plan.of(inventory, regrouped({site: parse_choice(mapping) for site, mapping in choices.items()}, inventory))
    plan.check(inventory, PAREDOWN)
    return inventory, plan


def _load_own(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(folder)
    inventory, plan = stored_plan(folder, config)
    tensors: dict[str, Tensor] = {}
    for path in shards(folder, STEM):
        try:
            tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is truncated ({error}); copy it again") from None
    for name, spec in plan.layout(inventory).items():
        found = tensors.get(name)
        if found is not None and (tuple(found.shape), str(found.dtype)) != (spec.shape, f"torch.{spec.dtype}"):
            raise CheckpointError(
                f"{name} is {found.dtype} {tuple(found.shape)}, expected {spec.dtype} {spec.shape}; "
                "apply the plan again"
            )
    return assemble(config, inventory, plan, tensors, dtype)


def _load_plain(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(folder)
    try:
        model, report = model_class(config).from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:  # a shape mismatch is a RuntimeError
        raise CheckpointError(f"{folder} cannot be loaded: {str(error).strip().splitlines()[0]}") from None
    faults = [
        f"{kind.removesuffix('_keys')} {key}"
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        for key in report[kind]
    ]
    if faults:
        raise CheckpointError(f"{folder} does not fit its configuration: {', '.join(faults[:3])}; apply the plan again")
    loaded: PreTrainedModel = model
    return loaded
