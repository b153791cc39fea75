"""A model without some of its blocks, attentions and feed-forward networks: what stands in their places, and how the others move up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from paredown.compressors.sites import blocks_of
from paredown.space.errors import PlanError
from paredown.space.layouts import leaves_out
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site

POSITION = {"layer_idx", "layer_id", "layer_index"}
"""Attributes that say where a block stands; all others must be as they were."""


class Zeros(nn.Module):
    """Adds nothing, whatever comes in: zeros in place of a layer or a network.

    Args:
        width: Of the zeros; None for that of the inputs.
    """

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        return x.new_zeros((*x.shape[:-1], self.width or x.shape[-1]))


class NoAttention(nn.Module):
    """Adds nothing, looks at no other token and leaves the cache alone."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        """Zeros, and no weights of attention."""
        return torch.zeros_like(hidden_states), None


def leave_out(model: PreTrainedModel, config: Any, inventory: Inventory, plan: Plan) -> None:
    """Takes attentions and feed-forward networks that are dropped out of a model without the dropped blocks.

    The attentions that are left take the first places of the cache, one after the other: transformers reads from its first
    place how many tokens it holds.

    Raises:
        PlanError: If an attention cannot be left out.
    """
    check_places(config, inventory, plan)
    dropped, absent = plan.dropped(inventory), plan.attentions(inventory)
    rename = renumbering(inventory, dropped)
    blocks = list(blocks_of(model)[1])  # not to be found any more when they have no matrices
    for site, choice in plan.decided(inventory):
        if site.structured and leaves_out(site, choice):
            _replace(model, blocks, site, rename)
    if absent:
        kept = [index for index in range(len(_blocks(inventory))) if index not in dropped]
        _move_up([block for index, block in zip(kept, blocks, strict=True) if index not in absent])


def check_places(config: Any, inventory: Inventory, plan: Plan) -> None:
    """Refuses to leave out attentions where the others cannot take their places in the cache.

    Raises:
        PlanError: If layers are of several types, each with a cache of its own kind, or if no attention would be left.
    """
    absent = plan.attentions(inventory)
    if absent and len(set(getattr(config.get_text_config(), "layer_types", None) or ())) > 1:
        raise PlanError(
            f"layers of {inventory.architecture} are of several types, and their attentions cannot change places in the cache; drop "
            "whole blocks or feed-forward networks"
        )
    if absent and len(absent) + len(plan.dropped(inventory)) == len(_blocks(inventory)):
        raise PlanError("every attention is dropped; keep one at least")


def renumbering(inventory: Inventory, dropped: Sequence[int]) -> Callable[[str], str]:
    """The function from a name in the original to the name in the model without the dropped blocks.

    It raises PlanError for a name in a dropped block: what has that name afterwards is another block's.
    """
    prefixes = {site.block: f"{site.name}." for site in _blocks(inventory) if site.block is not None}
    places = {}
    for new, old in enumerate(index for index in sorted(prefixes) if index not in dropped):
        places[prefixes[old]] = prefixes[new]

    def rename(name: str) -> str:
        for old, new in places.items():
            if f"{name}.".startswith(old):
                return f"{new}{name[len(old) :]}"
        if any(f"{name}.".startswith(prefixes[block]) for block in dropped):
            raise PlanError(f"{name} lies in a block that the plan drops; ask for modules of the blocks that stay")
        return name

    return rename


def _blocks(inventory: Inventory) -> list[Site]:
    return [site for site in inventory.parents if site.kind == "block"]


def _replace(model: PreTrainedModel, blocks: Sequence[nn.Module], site: Site, rename: Callable[[str], str]) -> None:
    """Puts what adds nothing where the matrices of a site and what lies between them were."""
    *makers, reader = site.members
    owner, last = (rename(member.module).rpartition(".")[0] for member in (makers[0], reader))
    whole = owner == last and all(model.get_submodule(owner) is not block for block in blocks)
    if site.kind == "attention":
        model.set_submodule(owner, NoAttention())
    elif whole:
        model.set_submodule(owner, Zeros())
    else:
        for maker in makers:
            model.set_submodule(rename(maker.module), Zeros(1))
    if not whole:
        model.set_submodule(rename(reader.module), Zeros(reader.shape[0]))


def _move_up(blocks: Sequence[nn.Module]) -> None:
    """Gives blocks the first places, in their order."""
    for place, block in enumerate(blocks):
        for module in block.modules():
            for attribute in POSITION & vars(module).keys():
                setattr(module, attribute, place)
