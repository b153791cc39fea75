"""The model in which plans are scored: the original, with its weights replaced by those of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from paredown.compressors.bank.bank import Bank
from paredown.compressors.bank.encoding import Tensors, norm_names
from paredown.compressors.original.checkpoint import is_placeholder, placeholder
from paredown.compressors.original.find_sites import blocks_of
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site


class PlannedModel:
    """A float32 model that takes one plan after another and replaces only the sites that differ.

    A model without weights (`empty_model`) is streamed: a block's parameters are loaded just before it runs and
    released afterwards. Parameters outside the blocks (embeddings, final norm, head) stay in memory.

    Args:
        model: The original from `open_original`; its parameters are replaced.
        inventory: Its sites.
        bank: Source of compressed sites and of the original's parameters.

    Attributes:
        streamed: Whether the blocks hold their weights only while they run.
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
            bank: A bank of the same original with another calibration; the model's own by default.

        Returns:
            Number of sites that changed; a change of the dropped blocks counts as one more.
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
                # Forgotten until all of it is in place, so that after an error no half-replaced site counts as done.
                self.forget([site])
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

        Dropping a block renames the later ones in the model, so looking a name up there finds another module.
        """
        return self._modules[name]

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """All blocks of the original."""
        return tuple(self._blocks)

    @contextmanager
    def side_by_side(self, passes: int) -> Iterator[None]:
        """Within the context, ``passes`` forward passes run at once and go through a streamed model's blocks together.

        The first pass to enter a block loads its weights, and the last to leave it releases them.
        """
        self._passes, self._entered, self._left = passes, 0, 0
        try:
            yield
        finally:
            self._passes, self._entered, self._left = 1, 0, 0
            for block in self._blocks if self.streamed else ():  # after an error, some passes never left
                self._let_go(block)

    def forget(self, sites: Iterable[Site]) -> None:
        """Marks sites whose parameters were changed from outside, so that the next plan replaces them in any case."""
        for site in sites:
            self._in_place.update(dict.fromkeys(site.covers or (site.name,), ("", KEEP, "")))

    def _exchanged(self, site: Site, choice: Choice, bank: Bank) -> Tensors:
        """The parameters of a site under a choice, and the original norms that the previous choice may have changed."""
        values = self._originals(name for leaf in site.covers or (site.name,) for name in self._changed_norms(leaf))
        return values | self._values(site, choice, bank)

    def _changed_norms(self, leaf: str) -> list[str]:
        """Names of norms that the choice in place at a leaf may have changed."""
        before = self._sites.get(self._in_place[leaf][0])
        possible = [before] if before else [site for site in self.inventory.parents if leaf in site.covers]
        return [name for site in possible for name in norm_names(site)]

    def _values(self, site: Site, choice: Choice, bank: Bank) -> Tensors:
        """The parameters of a site under a choice; what a structured choice does not store is the original's."""
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
        """Loads the parameters that stay in memory, and installs hooks that load and release each block's."""
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
        """Forward pre-hook: the first pass to enter a block loads its weights."""
        with self._lock:
            self._entered += 1
            if self._entered % self._passes == 1 % self._passes:
                self._fetch(index, rest)

    def _fetch(self, index: int, rest: Iterable[str]) -> None:
        """Loads the parameters of a block; norms first, because a choice may change them."""
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
        """The original's parameters of a site, written into memory that the previous block released.

        Touching new pages costs more than the copy.
        """
        found = {}
        for name in (f"{member.module}.{part}" for member in site.members for part in ("weight", "bias")):
            if name in self.bank.parameters:
                stored = self.bank.parameters[name]
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
        last = block is getattr(self._owner, self._attribute)[-1]
        self._room, self._taken = [] if last else self._taken, []
