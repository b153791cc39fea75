"""The model in which plans are scored: the original, with a plan in place of its weights."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel

from paredown.compressors.bank import Bank
from paredown.compressors.sites import blocks_of
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site


class PlannedModel:
    """A float32 model that takes one plan after the other; only what differs is touched.

    Args:
        model: The original as `load_original` gives it; its parameters are exchanged.
        inventory: Its sites.
        bank: Where compressed sites come from.
    """

    def __init__(self, model: PreTrainedModel, inventory: Inventory, bank: Bank) -> None:
        self.model = model
        self.inventory = inventory
        self.bank = bank
        self.plan = Plan()
        self._modules = dict(model.named_modules())
        self._sites = {site.name: site for site in inventory.sites}
        name, blocks = blocks_of(model)
        self._owner = model.get_submodule(name.rpartition(".")[0])
        self._attribute = name.rpartition(".")[2]
        self._blocks = list(blocks)
        self._layer_types = getattr(model.config, "layer_types", None)
        self._in_place: dict[str, tuple[str, Choice, str]] = {site.name: (site.name, KEEP, "") for site in inventory.leaves}

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
            self._exchange(site, choice, bank)
            self._in_place.update(dict.fromkeys(leaves, wanted))
            touched += 1
        dropped = plan.dropped(self.inventory)
        if dropped != self.plan.dropped(self.inventory):
            stay = [i for i in range(len(self._blocks)) if i not in dropped]
            setattr(self._owner, self._attribute, nn.ModuleList(self._blocks[i] for i in stay))
            if self._layer_types is not None:
                self.model.config.layer_types = [self._layer_types[i] for i in stay]
            touched += 1
        self.plan = plan
        return touched

    def _exchange(self, site: Site, choice: Choice, bank: Bank) -> None:
        for name, value in bank.decoded(site, choice).items():
            module_name, _, part = name.rpartition(".")
            module = self._modules[module_name]
            parameter: Tensor = getattr(module, part)
            parameter.data = value
            if part == "weight" and hasattr(module, "nf"):  # GPT-2's Conv1D shapes its output by this
                module.nf = value.shape[1]
