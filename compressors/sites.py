"""The sites of a model, found by walking it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from paredown.compressors.checkpoint import config_of, parameters_of, skeleton, stored_layout
from paredown.space.errors import CheckpointError
from paredown.space.site import Inventory, Kind, Member, Site, joint_name
from paredown.space.tensors import TensorSpec

FEED_FORWARD = (
    ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    ("mlp.c_fc", "mlp.c_proj"),
    ("mlp.fc1", "mlp.fc2"),
    ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ("fc1", "fc2"),
    ("intermediate.dense", "output.dense"),
)
"""Matrices of a feed-forward network within a block: those that make the neurons, then the one that reads them."""


def blocks_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Name and list of the repeated blocks: the longest list of one class that holds linear layers.

    Raises:
        CheckpointError: If the model has none.
    """
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len({type(item) for item in module}) == 1
        and any(isinstance(inner, (nn.Linear, Conv1D)) for inner in module[0].modules())
    ]
    if not found:
        raise CheckpointError(f"{type(model).__name__} has no list of blocks with linear layers; it cannot be compressed")
    return max(found, key=lambda pair: (len(pair[1]), -len(pair[0])))


def inventory_of(folder: Path, config: Any | None = None, ties: Sequence[Sequence[str]] = ()) -> Inventory:
    """Everything that a model folder stores, by site; reads headers only.

    Args:
        folder: A model folder of transformers.
        config: Its configuration, where that was read already.
        ties: Groups of module names (last part) that must take one choice.

    Raises:
        CheckpointError: If the folder is incomplete or the model has nothing to decide.
    """
    config = config or config_of(folder)
    stored = stored_layout(folder)
    default = next(iter(stored.values())).dtype
    return walk(skeleton(config), stored, default, ties)


def walk(model: PreTrainedModel, stored: dict[str, TensorSpec], default: str, ties: Sequence[Sequence[str]] = ()) -> Inventory:
    """The inventory of a model, with dtypes as ``stored`` gives them by name, else ``default``.

    Layers behind the blocks of an encoder (poolers, heads) are no sites: it is scored by its final hidden states, which say
    nothing of them.
    """
    prefix, blocks = blocks_of(model)
    parameters = parameters_of(model)
    layout = {name: TensorSpec(stored[name].dtype if name in stored else default, tuple(p.shape)) for name, p in parameters.items()}
    names = {id(p): name for name, p in parameters.items()}
    owned: set[str] = set()
    leaves: list[Site] = []
    matrices: dict[str, Member] = {}
    causal = model.get_output_embeddings() is not None and "MaskedLM" not in type(model).__name__
    behind = False
    embedding = model.get_input_embeddings()
    for name, module in model.named_modules():
        within = name.startswith(f"{prefix}.")
        behind = behind or within
        if not isinstance(module, (nn.Linear, Conv1D)) and module is not embedding:
            continue
        if behind and not within and not causal:
            continue
        weight = f"{name}.weight"
        if weight not in layout or len(layout[weight].shape) != 2:
            continue  # tied to one that came before
        bias = layout.get(f"{name}.bias")
        transposed = isinstance(module, Conv1D)
        rows, columns = layout[weight].shape
        tied = tuple(
            other for other, twin in model.named_modules() if other != name and names.get(id(getattr(twin, "weight", None))) == weight
        )
        matrices[name] = Member(
            module=name,
            shape=(columns, rows) if transposed else (rows, columns),
            dtype=layout[weight].dtype,
            class_name=type(module).__name__,
            transposed=transposed,
            bias=bias,
            tied=tied,
        )
        owned.update({weight} | ({f"{name}.bias"} if bias else set()))
    leaves = _leaves(matrices, prefix, embedding_name=next((n for n, m in model.named_modules() if m is embedding), None), ties=ties)
    sites = list(leaves)
    for index in range(len(blocks)):
        start = f"{prefix}.{index}."
        inside = [site for site in leaves if site.block == index]
        for pattern in FEED_FORWARD:
            if all(start + part in matrices for part in pattern):
                members = tuple(matrices[start + part] for part in pattern)
                modules = {member.module for member in members}
                covers = tuple(site.name for site in inside if modules.issuperset(m.module for m in site.members))
                if {m.module for site in inside if site.name in covers for m in site.members} == modules:
                    name = joint_name([member.module for member in members])
                    sites.append(Site(name=name, kind="ffn", block=index, members=members, covers=covers))
                break
        rest = {name: spec for name, spec in layout.items() if name.startswith(start) and name not in owned}
        owned.update(rest)
        covers = tuple(site.name for site in inside)
        sites.append(Site(name=start[:-1], kind="block", block=index, members=(), covers=covers, rest=rest))
    return Inventory(
        architecture=type(model).__name__,
        sites=tuple(sites),
        rest={name: spec for name, spec in layout.items() if name not in owned},
        causal=causal,
    )


def _leaves(matrices: dict[str, Member], prefix: str, *, embedding_name: str | None, ties: Sequence[Sequence[str]]) -> list[Site]:
    leaves = []
    done: set[str] = set()
    for name in matrices:
        if name in done:
            continue
        parent, _, last = name.rpartition(".")
        group = next((tie for tie in ties if last in tie), (last,))
        modules = [module for part in group if (module := f"{parent}.{part}" if parent else part) in matrices]
        done.update(modules)
        block = int(name[len(prefix) + 1 :].split(".")[0]) if name.startswith(f"{prefix}.") else None
        kind: Kind = "embedding" if name == embedding_name else "linear"
        leaves.append(Site(name=joint_name(modules), kind=kind, block=block, members=tuple(matrices[m] for m in modules)))
    return leaves
