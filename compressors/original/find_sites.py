"""Finds the sites of a model by walking its modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from paredown.compressors.original.checkpoint import config_of, parameters_of, skeleton, stored_layout
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

ATTENTION = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
    ("attn.c_attn", "attn.c_proj"),
    ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
)
"""Matrices of an attention within a block: queries, keys and values, then the one that reads the heads."""

NORMS = {
    "LlamaDecoderLayer": ("input_layernorm", "post_attention_layernorm"),
    "MistralDecoderLayer": ("input_layernorm", "post_attention_layernorm"),
    "Qwen2DecoderLayer": ("input_layernorm", "post_attention_layernorm"),
    "Qwen3DecoderLayer": ("input_layernorm", "post_attention_layernorm"),
    "GPT2Block": ("ln_1", "ln_2"),
    "OPTDecoderLayer": ("self_attn_layer_norm", "final_layer_norm"),
}
"""By class of block: the norm that only the attention reads, and the norm that only the feed-forward network reads.

Both multiply their output by their weight."""

SEPARATE_HEADS = ("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention", "BertSelfAttention")
"""Attention classes that derive the number of heads from the widths of their matrices.

Narrower matrices therefore need no other code."""


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
        raise CheckpointError(
            f"{type(model).__name__} has no list of blocks with linear layers; it cannot be compressed"
        )
    return max(found, key=lambda pair: (len(pair[1]), -len(pair[0])))


def inventory_of(folder: Path, config: Any | None = None, ties: Sequence[Sequence[str]] = ()) -> Inventory:
    """Everything that a model folder stores, by site; reads headers only.

    Args:
        folder: A model folder of transformers.
        config: Its configuration, if it has been read already.
        ties: Groups of module names (last component) that must share one choice.

    Raises:
        CheckpointError: If the folder is incomplete or the model has nothing to decide.
    """
    config = config or config_of(folder)
    stored = stored_layout(folder)
    default = next(iter(stored.values())).dtype
    return walk(skeleton(config), stored, default, ties)


def walk(
    model: PreTrainedModel, stored: dict[str, TensorSpec], default: str, ties: Sequence[Sequence[str]] = ()
) -> Inventory:
    """The inventory of a model. Dtypes come from ``stored`` by name, else from ``default``.

    Layers after the blocks of an encoder (poolers, heads) are not sites: an encoder is scored by its final hidden
    states, which do not depend on them.
    """
    prefix, blocks = blocks_of(model)
    layout = {
        name: TensorSpec(stored[name].dtype if name in stored else default, tuple(p.shape))
        for name, p in parameters_of(model).items()
    }
    causal = model.get_output_embeddings() is not None and "MaskedLM" not in type(model).__name__
    matrices = _matrices(model, layout, None if causal else prefix)
    owned = {name for member in matrices.values() for name in (f"{member.module}.weight", f"{member.module}.bias")}
    embedding = model.get_input_embeddings()
    leaves = _leaves(
        matrices, prefix, embedding_name=next((n for n, m in model.named_modules() if m is embedding), None), ties=ties
    )
    sites = list(leaves)
    for index in range(len(blocks)):
        start = f"{prefix}.{index}."
        inside = [site for site in leaves if site.block == index]
        sites += _structured("attention", ATTENTION, blocks[index], start, matrices, inside, layout)
        sites += _structured("ffn", FEED_FORWARD, blocks[index], start, matrices, inside, layout)
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


def _matrices(model: PreTrainedModel, layout: Mapping[str, TensorSpec], last: str | None) -> dict[str, Member]:
    """Linear layers and the input embedding by module name, each stored matrix once.

    Args:
        model: The model.
        layout: Its parameters.
        last: Name of the list of blocks, if layers after it are left out.
    """
    names = {id(parameter): name for name, parameter in parameters_of(model).items()}
    found: dict[str, Member] = {}
    behind = False
    for name, module in model.named_modules():
        within = last is not None and name.startswith(f"{last}.")
        behind = behind or within
        if not isinstance(module, (nn.Linear, Conv1D)) and module is not model.get_input_embeddings():
            continue
        weight = f"{name}.weight"
        if (behind and not within) or weight not in layout or len(layout[weight].shape) != 2:
            continue  # after the blocks, or tied to an earlier matrix
        transposed = isinstance(module, Conv1D)
        rows, columns = layout[weight].shape
        found[name] = Member(
            module=name,
            shape=(columns, rows) if transposed else (rows, columns),
            dtype=layout[weight].dtype,
            class_name=type(module).__name__,
            transposed=transposed,
            bias=layout.get(f"{name}.bias"),
            tied=tuple(
                other
                for other, twin in model.named_modules()
                if other != name and names.get(id(getattr(twin, "weight", None))) == weight
            ),
        )
    return found


def _structured(
    kind: Kind,
    patterns: Sequence[Sequence[str]],
    block: nn.Module,
    start: str,
    matrices: Mapping[str, Member],
    inside: Sequence[Site],
    layout: Mapping[str, TensorSpec],
) -> list[Site]:
    """The attention or feed-forward network of a block as a list of at most one site.

    The list is empty unless the block has the matrices of a pattern, they share no leaf with other matrices, and they
    span at least two leaves. A single leaf would give two sites of one name.
    """
    pattern = next((pattern for pattern in patterns if all(start + part in matrices for part in pattern)), None)
    if pattern is None:
        return []
    members = tuple(matrices[start + part] for part in pattern)
    modules = {member.module for member in members}
    covered = [site for site in inside if modules.issuperset(m.module for m in site.members)]
    if len(covered) < 2 or {m.module for site in covered for m in site.members} != modules:
        return []
    site = Site(
        name=joint_name([member.module for member in members]),
        kind=kind,
        block=inside[0].block,
        members=members,
        covers=tuple(site.name for site in covered),
        norm=_norm(kind, block, start, layout),
        homogeneous=_is_homogeneous(kind, block, members),
        heads=_heads(block.get_submodule(pattern[0].rpartition(".")[0]), members) if kind == "attention" else None,
    )
    return [site]


def _norm(kind: Kind, block: nn.Module, start: str, layout: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    names = NORMS.get(type(block).__name__)
    if names is None or not getattr(block, "do_layer_norm_before", True):
        return {}
    norm = start + names[kind == "ffn"]
    return {name: layout[name] for name in (f"{norm}.weight", f"{norm}.bias") if name in layout}


def _is_homogeneous(kind: Kind, block: nn.Module, members: Sequence[Member]) -> bool:
    """Whether scaling a row of the matrix before the reader by a positive factor scales the reader's input alike.

    It does for attention values, which are averaged, for gated neurons, which are products, and for ReLU neurons.
    """
    if type(block).__name__ not in NORMS:
        return False
    if kind == "attention":
        return len(members) == 4
    return len(members) == 3 or isinstance(getattr(block, "activation_fn", None), nn.ReLU)


def _heads(attention: nn.Module, members: Sequence[Member]) -> tuple[int, int] | None:
    if type(attention).__name__ not in SEPARATE_HEADS:
        return None
    size: Any = getattr(attention, "head_dim", None) or attention.attention_head_size
    return members[0].shape[0] // size, members[1].shape[0] // size


def _leaves(
    matrices: dict[str, Member], prefix: str, *, embedding_name: str | None, ties: Sequence[Sequence[str]]
) -> list[Site]:
    leaves = []
    done: set[str] = set()
    ties = _merged(ties)
    for name in matrices:
        if name in done:
            continue
        parent, _, last = name.rpartition(".")
        group = next((tie for tie in ties if last in tie), (last,))
        modules = [module for part in group if (module := f"{parent}.{part}" if parent else part) in matrices]
        done.update(modules)
        block = int(name[len(prefix) + 1 :].split(".")[0]) if name.startswith(f"{prefix}.") else None
        kind: Kind = "embedding" if name == embedding_name else "linear"
        leaves.append(
            Site(name=joint_name(modules), kind=kind, block=block, members=tuple(matrices[m] for m in modules))
        )
    return leaves


def _merged(ties: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The groups, with those that share a name merged."""
    merged: list[tuple[str, ...]] = []
    for tie in ties:
        common = [group for group in merged if set(group) & set(tie)]
        names = dict.fromkeys([*(name for group in common for name in group), *tie])
        merged = [group for group in merged if group not in common] + [tuple(names)]
    return merged
