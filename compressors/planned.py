"""The model in which plans are scored: the original, with a plan in place of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from paredown.compressors.bank import Bank
from paredown.compressors.checkpoint import is_placeholder, placeholder
from paredown.compressors.sites import blocks_of
from paredown.compressors.storage import Tensors, norm_names
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site


class PlannedModel:
    """A float32 model that takes one plan after the other; only what differs is touched.

    A model without weights (`empty_model`) is streamed: a block's parameters are put in place when it is about to run, and let go
    when it has run. What lies outside the blocks (embeddings, final norm, head) stays in memory.

    Args:
        model: The original as `open_original` gives it; its parameters are exchanged.
        inventory: Its sites.
        bank: Where compressed sites come from, and the original's parameters.

    Attributes:
        streamed: Whether the blocks have their weights only while they run.
    """

    def __init__(self, model: PreTrainedModel, inventory: Inventory, bank: Bank) -> None:
        self.model = model
        self.inventory = inventory
        self.bank = bank
        self.plan = Plan()
        self._modules: dict[str, nn.Module] = dict(model.named_modules())
        self._dropped: tuple[int, ...] | None = ()
        self._sites = {site.name: site for site in inventory.sites}
        name, blocks = blocks_of(model)
        self._owner = model.get_submodule(name.rpartition(".")[0])
        self._attribute = name.rpartition(".")[2]
        self._blocks = list(blocks)
        self._layer_types = getattr(model.config, "layer_types", None)
        self._in_place: dict[str, tuple[str, Choice, str]] = {
            site.name: (site.name, KEEP, "") for site in inventory.leaves
        }
        self.streamed = any(is_placeholder(parameter) for parameter in model.parameters())
        self._decided: dict[int | None, list[tuple[Site, Choice, Bank]]] = {}
        self._taken: list[Tensor] = []
        self._room: list[Tensor] = []
        self._passes, self._entered, self._left, self._lock = 1, 0, 0, Lock()
        if self.streamed:
            self._stream(f"{name}.")

    def swap(self, plan: Plan, bank: Bank | None = None) -> int:
        """Puts a plan in place.

        Args:
            plan: The plan.
            bank: Of the same original, calibrated otherwise; the model's own by default.

        Returns:
            How many sites were touched.
        """
        bank = bank or self.bank
        touched = 0
        for site, choice in plan.decided(self.inventory):
            leaves = site.covers or (site.name,)
            wanted = (site.name, choice, bank.calibration if choice.needs else "")
            if site.kind == "block" or all(self._in_place[leaf] == wanted for leaf in leaves):
                continue
            if not self.streamed or site.block is None:
                values = self._exchanged(site, choice, bank)
                self.forget(
                    [site]
                )  # until all of it is in place: an error in between leaves nothing that is taken for whole
                self._put(values)
            self._in_place.update(dict.fromkeys(leaves, wanted))
            touched += 1
        if self.streamed:
            self._decide(plan, bank)
        dropped = plan.dropped(self.inventory)
        if dropped != self._dropped:
            self._dropped = None
            stay = [i for i in range(len(self._blocks)) if i not in dropped]
            setattr(self._owner, self._attribute, nn.ModuleList(self._blocks[i] for i in stay))
            if self._layer_types is not None:
                self.model.config.layer_types = [self._layer_types[i] for i in stay]
            self._dropped = dropped
            touched += 1
        self.plan = plan
        return touched

    def module(self, name: str) -> nn.Module:
        """The module of this name in the original, whatever plan is in place.

        The model itself names the blocks behind a dropped one differently, so its own look-ups by name find other modules.
        """
        return self._modules[name]

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The original's blocks."""
        return tuple(self._blocks)

    @contextmanager
    def side_by_side(self, passes: int) -> Iterator[None]:
        """Within, this many forward passes run at once, and go through the blocks of a streamed model together.

        The first to enter a block fetches its weights, the last to leave it lets them go.
        """
        self._passes, self._entered, self._left = passes, 0, 0
        try:
            yield
        finally:
            self._passes, self._entered, self._left = 1, 0, 0
            for block in self._blocks if self.streamed else ():  # after an error, not every pass has left
                self._let_go(block)

    def forget(self, sites: Iterable[Site]) -> None:
        """Others changed the parameters of these sites: the next plan puts its own in place, whatever it is."""
        for site in sites:
            self._in_place.update(dict.fromkeys(site.covers or (site.name,), ("", KEEP, "")))

    def _exchanged(self, site: Site, choice: Choice, bank: Bank) -> Tensors:
        """The parameters of a site under a choice, and of the norm that another choice had changed."""
        values = self._originals(name for leaf in site.covers or (site.name,) for name in self._changed_norms(leaf))
        return values | self._values(site, choice, bank)

    def _changed_norms(self, leaf: str) -> list[str]:
        """Norms that may have changed with what is in place at a leaf."""
        before = self._sites.get(self._in_place[leaf][0])
        possible = [before] if before else [site for site in self.inventory.parents if leaf in site.covers]
        return [name for site in possible for name in norm_names(site)]

    def _values(self, site: Site, choice: Choice, bank: Bank) -> Tensors:
        """The parameters of a site under a choice; of a structure that says nothing of a matrix, the original's."""
        decoded = bank.decoded(site, choice)
        return self.bank.decoded(site, KEEP) | decoded if site.structured else decoded

    def _originals(self, names: Iterable[str]) -> Tensors:
        parameters = self.bank.parameters
        return {name: parameters[name].float() for name in names if name in parameters}

    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            module_name, _, part = name.rpartition(".")
            module: Any = self.module(module_name)
            parameter: Tensor = getattr(module, part)
            parameter.data = value
            if part == "weight" and hasattr(module, "nf"):  # GPT-2's Conv1D shapes its output by this
                module.nf = value.shape[1]

    def _stream(self, prefix: str) -> None:
        """Puts in place what stays, and has each block fetch the rest."""
        parameters = self.bank.parameters
        names = [name for name, _ in self.model.named_parameters()]
        self._put(self._originals(name for name in names if not name.startswith(prefix)))
        for name, buffer in self.model.named_buffers():
            if name in parameters:
                buffer.copy_(parameters[name])
        self._decide(Plan(), self.bank)
        for index, block in enumerate(self._blocks):
            rest = next(site.rest for site in self.inventory.parents if site.kind == "block" and site.block == index)
            block.register_forward_pre_hook(partial(self._enter, index, [name for name in names if name in rest]))
            block.register_forward_hook(self._leave, always_call=True)

    def _decide(self, plan: Plan, bank: Bank) -> None:
        self._decided = {}
        for site, choice in plan.decided(self.inventory):
            self._decided.setdefault(site.block, []).append((site, choice, bank))

    def _enter(self, index: int, rest: Iterable[str], block: nn.Module, inputs: Any) -> None:
        """Before a block runs."""
        with self._lock:
            self._entered += 1
            if self._entered % self._passes == 1 % self._passes:
                self._fetch(index, rest)

    def _fetch(self, index: int, rest: Iterable[str]) -> None:
        """Puts the parameters of a block in place; norms first, since a choice may change them."""
        self._put(self._originals(rest))
        decided = self._decided.get(index, [])
        kept = {site.name: site for site, choice, _ in decided if choice == KEEP and not site.structured}
        for site in kept.values():
            self._put(self._kept(site))
        self._room = []
        for site, choice, bank in decided:
            if site.name not in kept:
                self._put(self._values(site, choice, bank))

    def _kept(self, site: Site) -> Tensors:
        """The original's parameters of a site, in memory that the block before has left: new pages cost more than what is written there."""
        found = {}
        for name in (f"{member.module}.{part}" for member in site.members for part in ("weight", "bias")):
            if name in self.bank.parameters:
                stored = self.bank.parameters[name]
                free = next((i for i, each in enumerate(self._room) if each.shape == stored.shape), None)
                with torch.inference_mode(False):  # passes of either kind may write there
                    found[name] = torch.empty(stored.shape) if free is None else self._room.pop(free)
                found[name].copy_(stored)
        self._taken += found.values()
        return found

    def _leave(self, block: nn.Module, inputs: Any, output: Any) -> None:
        """Also after an error: nothing of a block stays in place."""
        with self._lock:
            self._left += 1
            if self._left % self._passes == 0:
                self._let_go(block)

    def _let_go(self, block: nn.Module) -> None:
        for parameter in block.parameters():
            parameter.data = placeholder(parameter.shape)
        last = block is getattr(self._owner, self._attribute)[-1]
        self._room, self._taken = [] if last else self._taken, []
