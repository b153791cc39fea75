"""Models without some of their blocks, attentions or feed-forward networks: stand-ins and renumbering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from paredown.compressors.original.find_sites import blocks_of
from paredown.space.errors import PlanError
from paredown.space.layouts import leaves_out
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site

POSITION = {"layer_idx", "layer_id", "layer_index"}
"""Module attributes that hold a block's position. Dropping other blocks may change these and no others."""


class Zeros(nn.Module):
    """Stand-in for a layer or network that is left out: returns zeros for any input.

    Args:
        width: Features of the output; None for as many as the input has.
    """

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Zeros, shape ``(*, width)``."""
        return x.new_zeros((*x.shape[:-1], self.width or x.shape[-1]))


class NoAttention(nn.Module):
    """Stand-in for a dropped attention: returns zeros, reads no other token and leaves the cache alone."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        """Zeros, and None for the attention weights."""
        return torch.zeros_like(hidden_states), None


def leave_out(model: PreTrainedModel, config: Any, inventory: Inventory, plan: Plan) -> None:
    """Removes dropped attentions and feed-forward networks from a model that was built without the dropped blocks.

    The remaining attentions take the first cache slots in order, because transformers reads the number of cached tokens
    from the first slot.

    Raises:
        PlanError: If an attention cannot be left out.
    """
    check_places(config, inventory, plan)
    dropped, absent = plan.dropped(inventory), plan.attentions(inventory)
    rename = renumbering(inventory, dropped)
    blocks = list(blocks_of(model)[1])  # listed first: blocks without matrices are not found any more
    for site, choice in plan.decided(inventory):
        if site.structured and leaves_out(site, choice):
            _replace(model, blocks, site, rename)
    if absent:
        kept = [index for index in range(len(_blocks(inventory))) if index not in dropped]
        _move_up([block for index, block in zip(kept, blocks, strict=True) if index not in absent])


def check_places(config: Any, inventory: Inventory, plan: Plan) -> None:
    """Checks that the remaining attentions can move to other cache slots.

    Raises:
        PlanError: If layers are of several types, each with its own kind of cache, or if no attention would remain.
    """
    absent = plan.attentions(inventory)
    if absent and len(set(getattr(config.get_text_config(), "layer_types", None) or ())) > 1:
        raise PlanError(
            f"{inventory.architecture} has layers of several types, so its attentions cannot move to other cache "
            "slots; drop whole blocks or feed-forward networks"
        )
    if absent and len(absent) + len(plan.dropped(inventory)) == len(_blocks(inventory)):
        raise PlanError("every attention is dropped; keep at least one")


def renumbering(inventory: Inventory, dropped: Sequence[int]) -> Callable[[str], str]:
    """The function from a name in the original to the name in the model without the dropped blocks.

    The function raises PlanError for a name in a dropped block, because another block has that name afterwards.
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
            raise PlanError(f"{name} lies in a block that the plan drops; use modules of the blocks that remain")
        return name

    return rename


def _blocks(inventory: Inventory) -> list[Site]:
    return [site for site in inventory.parents if site.kind == "block"]


def _replace(model: PreTrainedModel, blocks: Sequence[nn.Module], site: Site, rename: Callable[[str], str]) -> None:
    """Replaces a site's matrices, and the modules between them, with stand-ins that add nothing."""
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
    """Assigns positions 0, 1, ... to the blocks, in order."""
    for place, block in enumerate(blocks):
        for module in block.modules():
            for attribute in POSITION & vars(module).keys():
                setattr(module, attribute, place)
