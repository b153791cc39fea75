"""compressed-tensors' ``pack-quantized`` files, which plain ``from_pretrained`` loads; blocks are renumbered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from paredown.compressors.methods.quantize import Quantize
from paredown.compressors.model.assemble import reduced_config, renumbering
from paredown.deploy.formats import Format, formats, write_json
from paredown.deploy.formats.shards import write_shards
from paredown.space.layouts import inner
from paredown.space.plan import Plan
from paredown.space.site import Inventory

STEM = "model"
"""Beginning of the names of its tensor files."""


def write(
    folder: Path,
    *,
    config: Any,
    inventory: Inventory,
    plan: Plan,
    tensors: Iterable[tuple[str, Tensor]],
    shard_bytes: int,
) -> None:
    """Writes ``config.json`` and ``model.safetensors``, or several files and their index."""
    dropped = plan.dropped(inventory)
    rename = renumbering(inventory, dropped)
    values = reduced_config(config, inventory, dropped).to_dict()
    groups: dict[tuple[int, int | str], list[str]] = {}
    ignored: list[str] = []
    for site, choice in plan.decided(inventory):
        modules = [rename(member.module) for member in site.members if member.class_name == "Linear"]
        step = inner(site, choice)
        if isinstance(step, Quantize):
            groups.setdefault((step.bits, step.group_size), []).extend(modules)
        elif site.kind != "block":
            ignored += modules
            ignored += [rename(module) for member in site.members for module in member.tied]
    if groups:
        values["quantization_config"] = _quantization_config(groups, ignored)
    write_json(folder / "config.json", values)
    turned = turned_names(inventory)
    stored = ((rename(name), tensor.T.contiguous() if name in turned else tensor) for name, tensor in tensors)
    write_shards(folder, STEM, TRANSFORMERS.layout(inventory, plan), stored, shard_bytes)


def turned_names(inventory: Inventory) -> set[str]:
    """Dense weights that the original stores as ``(in_features, out_features)``; this file must store them so, too."""
    return {f"{member.module}.weight" for site in inventory.leaves for member in site.members if member.transposed}


def _quantization_config(groups: Mapping[tuple[int, int | str], list[str]], ignored: list[str]) -> dict[str, Any]:
    """The compression scheme of every module.

    Each module is named exactly, since a class name would also match modules that are kept.
    """
    config_groups = {}
    for index, ((bits, group_size), modules) in enumerate(
        sorted(groups.items(), key=lambda item: (item[0][0], str(item[0][1])))
    ):
        channel = group_size == "channel"
        weights = {
            "num_bits": bits,
            "type": "int",
            "symmetric": True,
            "strategy": "channel" if channel else "group",
            "group_size": None if channel else group_size,
            "dynamic": False,
        }
        config_groups[f"group_{index}"] = {
            "targets": [f"re:^{re.escape(module)}$" for module in modules],
            "weights": weights,
            "input_activations": None,
            "output_activations": None,
            "format": "pack-quantized",
        }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": config_groups,
        "ignore": sorted(ignored),
        "kv_cache_scheme": None,
    }


TRANSFORMERS = formats.register("transformers")(
    Format(
        write=write,
        stem=STEM,
        renaming=lambda inventory, plan: renumbering(inventory, plan.dropped(inventory)),
        turned=turned_names,
    )
)
