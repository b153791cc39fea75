"""Blocks of a model without weights: loaded just before they run, and released afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from paredown.compressors.bank.bank import Bank
from paredown.compressors.bank.encoding import Tensors
from paredown.compressors.model.original_modules import OriginalModules
from paredown.compressors.original.checkpoint import placeholder
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site


class BlockStream:
    """Hooks that load the parameters of each block under a plan and release them.

    Parameters outside the blocks (embeddings, final norm, head) are loaded at once and stay in memory.

    Args:
        model: A model without weights, from `empty_model`.
        modules: Its modules.
        inventory: Its sites.
        bank: Source of compressed sites and of the original's parameters.
    """

    def __init__(self, model: PreTrainedModel, modules: OriginalModules, inventory: Inventory, bank: Bank) -> None:
        self._modules = modules
        self._inventory = inventory
        self._bank = bank
        self._decided: dict[int | None, list[tuple[Site, Choice, Bank]]] = {}
        self._taken: list[Tensor] = []
        self._room: list[Tensor] = []
        self._passes, self._entered, self._left, self._lock = 1, 0, 0, Lock()
        self.decide(Plan(), bank)
        names = [name for name, _ in model.named_parameters()]
        modules.put(bank.originals(name for name in names if not name.startswith(f"{modules.prefix}.")))
        for name, buffer in model.named_buffers():
            if name in bank.parameters:
                buffer.copy_(bank.parameters[name])
        for index, block in enumerate(modules.blocks):
            rest = next(site.rest for site in inventory.parents if site.kind == "block" and site.block == index)
            block.register_forward_pre_hook(partial(self._enter, index, [name for name in names if name in rest]))
            block.register_forward_hook(self._leave, always_call=True)

    def decide(self, plan: Plan, bank: Bank) -> None:
        """Sets the plan, and the source of its compressed sites, of the passes that follow."""
        self._decided = {}
        for site, choice in plan.decided(self._inventory):
            self._decided.setdefault(site.block, []).append((site, choice, bank))

    @contextmanager
    def side_by_side(self, passes: int) -> Iterator[None]:
        """Within the context, ``passes`` forward passes run at once and go through the blocks together.

        The first pass to enter a block loads its weights, and the last to leave it releases them.
        """
        self._passes, self._entered, self._left = passes, 0, 0
        try:
            yield
        finally:
            self._passes, self._entered, self._left = 1, 0, 0
            for block in self._modules.blocks:  # after an error, some passes never left
                self._let_go(block)

    def _enter(self, index: int, rest: Iterable[str], block: nn.Module, inputs: Any) -> None:
        """Forward pre-hook: the first pass to enter a block loads its weights."""
        with self._lock:
            self._entered += 1
            if self._entered % self._passes == 1 % self._passes:
                self._fetch(index, rest)

    def _fetch(self, index: int, rest: Iterable[str]) -> None:
        """Loads the parameters of a block; norms first, because a choice may change them."""
        self._modules.put(self._bank.originals(rest))
        decided = self._decided.get(index, [])
        kept = {site.name: site for site, choice, _ in decided if choice == KEEP and not site.structured}
        for site in kept.values():
            self._modules.put(self._kept(site))
        self._room = []
        for site, choice, bank in decided:
            if site.name not in kept:
                self._modules.put(bank.replacement(site, choice))

    def _kept(self, site: Site) -> Tensors:
        """The original's parameters of a site, written into memory that the previous block released.

        Touching new pages costs more than the copy.
        """
        found = {}
        for name in (f"{member.module}.{part}" for member in site.members for part in ("weight", "bias")):
            if name in self._bank.parameters:
                stored = self._bank.parameters[name]
                free = next((i for i, each in enumerate(self._room) if each.shape == stored.shape), None)
                with torch.inference_mode(False):  # writable with and without inference mode
                    found[name] = torch.empty(stored.shape) if free is None else self._room.pop(free)
                found[name].copy_(stored)
        self._taken += found.values()
        return found

    def _leave(self, block: nn.Module, inputs: Any, output: Any) -> None:
        """Forward hook, called after errors too: the last pass to leave a block releases its weights."""
        with self._lock:
            self._left += 1
            if self._left % self._passes == 0:
                self._let_go(block)

    def _let_go(self, block: nn.Module) -> None:
        for parameter in block.parameters():
            parameter.data = placeholder(parameter.shape)
        last = block is self._modules.running[-1]
        self._room, self._taken = [] if last else self._taken, []
