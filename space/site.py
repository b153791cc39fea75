"""Sites, as values: the parts of a model that a plan decides on."""

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
        dtype: The tensor's dtype as the original stores it.
        class_name: The module's class: ``Linear``, ``Conv1D``, ``Embedding``.
        transposed: Whether the original stores ``(in_features, out_features)``, as GPT-2's ``Conv1D`` does.
        bias: The bias, which is stored unchanged; None if there is none.
        tied: Modules that share this tensor, which is stored once.
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
        """Number of weights, bias excluded."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A part of the model that takes one choice.

    Attributes:
        name: The members' module names as one, with braces where they differ: ``layers.0.mlp.{gate,up}_proj``.
        kind: ``linear`` and ``embedding`` sites are leaves. An ``ffn``, ``attention`` or ``block`` site that is not
            kept overrules its leaves: their own choices have no effect.
        block: Index of the block that the site is part of; None outside blocks.
        members: The matrices. For an ``ffn`` or ``attention``: first those that make the neurons or heads, last the one
            that reads them.
        covers: Names of the leaf sites that this site overrules.
        rest: For a block: its tensors that belong to no leaf site (norms).
        norm: For an ``ffn`` or ``attention``: tensors of the norm whose output only the first members read. Empty if
            there is none, or if scaling the norm's tensors does not scale its output.
        homogeneous: For an ``ffn`` or ``attention``: whether scaling a row of the member before the reader by a
            positive factor scales the corresponding input of the reader by the same factor.
        heads: For an ``attention``: number of query heads, and of key and value heads; None if heads cannot be
            separated.
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
        """Whether the site is one matrix, or several that take one choice; it overrules no other site."""
        return self.kind in ("linear", "embedding")

    @property
    def structured(self) -> bool:
        """Whether the site is an ``ffn`` or an ``attention``, whose matrices form one structure."""
        return self.kind in ("ffn", "attention")

    @property
    def rest_bytes(self) -> int:
        """Bytes of a block's own tensors, which dropping it frees; 0 for other sites."""
        return total_bytes(self.rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Every tensor that a checkpoint stores, by site.

    Attributes:
        architecture: Class of the model in transformers.
        sites: Leaves and the sites that overrule them, in model order.
        rest: Tensors outside all blocks that belong to no site.
        causal: Whether the model is a causal language model.
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
        """Sites that overrule no other; every matrix belongs to exactly one of them."""
        return tuple(site for site in self.sites if site.is_leaf)

    @property
    def parents(self) -> tuple[Site, ...]:
        """Sites that overrule leaves: blocks, attentions and feed-forward networks."""
        return tuple(site for site in self.sites if not site.is_leaf)

    @property
    def parameters(self) -> int:
        """Number of parameters; tied ones count once."""
        layout = self.original_layout()
        return sum(spec.size_bytes // TensorSpec(spec.dtype, (1,)).size_bytes for spec in layout.values())

    @property
    def original_bytes(self) -> int:
        """Tensor bytes of the original as stored; tied tensors count once."""
        return total_bytes(self.original_layout())

    @property
    def rest_bytes(self) -> int:
        """Bytes of the tensors that belong to no leaf; dropping a block frees its own."""
        return total_bytes(self.rest) + sum(site.rest_bytes for site in self.sites)

    def budget_bytes(self, budget: Budget) -> int:
        """Largest number of tensor bytes that a budget allows for this model."""
        return budget.bytes_of(self.original_bytes, self.parameters)

    def original_layout(self) -> Layout:
        """Every tensor of the original by name; transposed matrices have their stored shape."""
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
    """One name for several modules: ``a.q_proj, a.k_proj`` is ``a.{q,k}_proj``. A single module keeps its name."""
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
    """Modules in a site's name; the inverse of `joint_name`."""
    head, brace, rest = name.partition("{")
    inner, _, tail = rest.partition("}")
    return [f"{head}{part}{tail}" for part in inner.split(",")] if brace else [name]
