"""The model in which plans are scored: the original, with its weights replaced by those of a plan."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedModel

from paredown.compressors.bank.bank import Bank
from paredown.compressors.bank.encoding import Tensors, norm_names
from paredown.compressors.model.block_stream import BlockStream
from paredown.compressors.model.original_modules import OriginalModules
from paredown.compressors.original.checkpoint import is_placeholder
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site


class PlannedModel:
    """A float32 model that takes one plan after another and replaces only the sites that differ.

    A model without weights (`empty_model`) is streamed: its blocks hold weights only while they run.

    Args:
        model: The original from `open_original`; its parameters are replaced.
        inventory: Its sites.
        bank: Source of compressed sites and of the original's parameters.

    Attributes:
        plan: The plan in place.
        modules: The original's modules by name.
        stream: Loads and releases the blocks of a model without weights; None if the weights are resident.
    """

    def __init__(self, model: PreTrainedModel, inventory: Inventory, bank: Bank) -> None:
        self.model = model
        self.inventory = inventory
        self.bank = bank
        self.plan = Plan()
        self.modules = OriginalModules(model)
        self._sites = {site.name: site for site in inventory.sites}
        self._in_place: dict[str, tuple[str, Choice, str]] = {
            site.name: (site.name, KEEP, "") for site in inventory.leaves
        }
        is_empty = any(is_placeholder(parameter) for parameter in model.parameters())
        self.stream = BlockStream(model, self.modules, inventory, bank) if is_empty else None

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
            if self.stream is None or site.block is None:
                values = self._norms_before(leaves) | bank.replacement(site, choice)
                # Forgotten until all of it is in place, so that after an error no half-replaced site counts as done.
                self.forget([site])
                self.modules.put(values)
            self._in_place.update(dict.fromkeys(leaves, wanted))
            touched += 1
        if self.stream:
            self.stream.decide(plan, bank)
        touched += self.modules.drop(plan.dropped(self.inventory))
        self.plan = plan
        return touched

    def forget(self, sites: Iterable[Site]) -> None:
        """Marks sites whose parameters were changed from outside, so that the next plan replaces them in any case."""
        for site in sites:
            self._in_place.update(dict.fromkeys(site.covers or (site.name,), ("", KEEP, "")))

    def _norms_before(self, leaves: Iterable[str]) -> Tensors:
        """The original's norms that the choices in place at some leaves may have changed."""
        names = []
        for leaf in leaves:
            before = self._sites.get(self._in_place[leaf][0])
            possible = [before] if before else [site for site in self.inventory.parents if leaf in site.covers]
            names += [name for site in possible for name in norm_names(site)]
        return self.bank.originals(names)
