"""Where a decision is made: the sites of a model, as values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from paredown.space.budget import Budget
from paredown.space.errors import UnknownNameError
from paredown.space.tensors import Layout, TensorSpec, total_bytes

Kind = Literal["linear", "embedding", "ffn", "attention", "block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One matrix of a site.

    Attributes:
        module: Name of the module in the original model.
        shape: ``(out_features, in_features)``, or ``(vocabulary, hidden)`` for an embedding.
        dtype: Of the tensor as the original stores it.
        class_name: The module's class: ``Linear``, ``Conv1D``, ``Embedding``.
        transposed: Whether the original stores ``(in_features, out_features)``, as GPT-2's ``Conv1D`` does.
        bias: The bias, stored as it is, or None.
        tied: Modules that share this tensor; it is stored once.
    """

    module: str
    shape: tuple[int, int]
    dtype: str
    class_name: str = "Linear"
    transposed: bool = False
    bias: TensorSpec | None = None
    tied: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Number of weights, the bias not counted."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What one decision is about.

    Attributes:
        name: The members' module names in one, braces where they differ: ``layers.0.mlp.{gate,up}_proj``.
        kind: ``linear`` and ``embedding`` sites are leaves; an ``ffn``, an ``attention`` or a ``block`` that is not kept overrules its
            leaves.
        block: Index of the block that it is part of; None outside blocks.
        members: The matrices. For an ``ffn`` or ``attention``: those that make the neurons or heads, then the one that reads them.
        covers: Names of the leaf sites that this one overrules.
        rest: For a block: its tensors that no leaf site owns (norms).
        norm: For an ``ffn`` or ``attention``: tensors of the norm whose output its first members read and nothing else does; empty
            where there is none, or where a scale of it is not a scale of its output.
        homogeneous: For an ``ffn`` or ``attention``: whether a row of the maker before the reader may be scaled by any positive
            number and what the reader finds in its place is scaled alike.
        heads: For an ``attention``: heads of the queries, and of keys and values; None where heads cannot be taken apart.
    """

    name: str
    kind: Kind
    block: int | None
    members: tuple[Member, ...]
    covers: tuple[str, ...] = ()
    rest: Layout = field(default_factory=dict, hash=False)
    norm: Layout = field(default_factory=dict, hash=False)
    homogeneous: bool = False
    heads: tuple[int, int] | None = None

    @property
    def is_leaf(self) -> bool:
        """Whether it overrules nothing: one matrix, or several that take one choice."""
        return self.kind in ("linear", "embedding")

    @property
    def structured(self) -> bool:
        """Whether its matrices belong together: an ``ffn`` or an ``attention``."""
        return self.kind in ("ffn", "attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Everything that a checkpoint stores, by site.

    Attributes:
        architecture: Class of the model in transformers.
        sites: Leaves and the sites that overrule them, in the order of the model.
        rest: Tensors outside all blocks that no site owns.
        causal: Whether it is a causal language model.
    """

    architecture: str
    sites: tuple[Site, ...]
    rest: Layout
    causal: bool = True

    def __getitem__(self, name: str) -> Site:
        for site in self.sites:
            if site.name == name:
                return site
        raise UnknownNameError(f"the model has no site {name!r}; `paredown inspect` lists the sites")

    @property
    def leaves(self) -> tuple[Site, ...]:
        """Sites that overrule nothing: every matrix belongs to exactly one."""
        return tuple(site for site in self.sites if site.is_leaf)

    @property
    def parents(self) -> tuple[Site, ...]:
        """Sites that overrule leaves: blocks, attentions and feed-forward networks."""
        return tuple(site for site in self.sites if not site.is_leaf)

    @property
    def parameters(self) -> int:
        """Number of parameters, tied ones once."""
        layout = self.original_layout()
        return sum(spec.size_bytes // TensorSpec(spec.dtype, (1,)).size_bytes for spec in layout.values())

    @property
    def original_bytes(self) -> int:
        """Tensor bytes of the original as stored, tied tensors once."""
        return total_bytes(self.original_layout())

    def budget_bytes(self, budget: str) -> int:
        """The most tensor bytes that a budget such as ``45%`` or ``4.25bpw`` allows of this model.

        Raises:
            StudyError: If it has no such form.
        """
        return Budget.parse(budget).bytes_of(self.original_bytes, self.parameters)

    def original_layout(self) -> Layout:
        """Every tensor of the original by name; transposed matrices as the original stores them."""
        layout = dict(self.rest)
        for site in self.sites:
            layout |= site.rest
            for member in site.members if site.is_leaf else ():
                shape = member.shape[::-1] if member.transposed else member.shape
                layout[f"{member.module}.weight"] = TensorSpec(member.dtype, shape)
                if member.bias:
                    layout[f"{member.module}.bias"] = member.bias
        return layout

    def shapes_sha256(self) -> str:
        """Fingerprint of module names and shapes: equal for a model and its fine-tunes, whatever their dtype."""
        shapes = {name: spec.shape for name, spec in self.original_layout().items()}
        return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()


def joint_name(modules: Sequence[str]) -> str:
    """One name for several modules: ``a.q_proj, a.k_proj`` is ``a.{q,k}_proj``; of one module, its own name."""
    if len(modules) == 1:
        return modules[0]
    split = [module.split(".") for module in modules]
    head = 0
    while all(len(parts) > head + 1 and parts[head] == split[0][head] for parts in split):
        head += 1
    tails = [".".join(parts[head:]) for parts in split]
    same = 0
    while all(len(tail) > same + 1 and tail[-1 - same] == tails[0][-1 - same] for tail in tails):
        same += 1
    end = tails[0][len(tails[0]) - same :]
    cut = next((i for i, letter in enumerate(end) if letter in "_."), None)
    end = "" if cut is None else end[cut:]
    inner = ",".join(tail[: len(tail) - len(end)] for tail in tails)
    return ".".join([*split[0][:head], f"{{{inner}}}{end}"])


def modules_of(name: str) -> list[str]:
    """The modules of a site's name: what `joint_name` made one of."""
    head, brace, rest = name.partition("{")
    inner, _, tail = rest.partition("}")
    return [f"{head}{part}{tail}" for part in inner.split(",")] if brace else [name]
