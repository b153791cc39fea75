"""Plans: a choice for every site of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from paredown.space.choice import KEEP, Choice
from paredown.space.errors import ParedownError, PlanError, UnknownNameError
from paredown.space.layouts import leaves_out, site_fault, site_layout
from paredown.space.site import Inventory, Site
from paredown.space.targets.target import Target
from paredown.space.tensors import TensorSpec, total_bytes


@dataclass(frozen=True)
class Plan:
    """Choices by site name, in model order; a site without an entry is kept.

    Attributes:
        entries: Pairs of site name and choice. No choice is ``keep``, and no site is overruled by another entry.
    """

    entries: tuple[tuple[str, Choice], ...] = ()

    @classmethod
    def of(cls, inventory: Inventory, choices: Mapping[str, Choice]) -> Plan:
        """The plan of these choices in canonical form, without choices at overruled sites.

        Raises:
            UnknownNameError: If the model lacks one of the sites.
        """
        unknown = set(choices) - {site.name for site in inventory.sites}
        if unknown:
            inventory[min(unknown)]  # raises UnknownNameError
        overruled: dict[str, str] = {}
        ranked = sorted(inventory.parents, key=lambda site: site.kind != "block")
        for site in ranked:
            if choices.get(site.name, KEEP) == KEEP or any(leaf in overruled for leaf in site.covers):
                continue
            overruled |= {leaf: site.name for leaf in site.covers}
        active = set(overruled.values())
        kept_parents = {site.name for site in inventory.parents} - active
        entries = [
            (site.name, choices[site.name])
            for site in inventory.sites
            if choices.get(site.name, KEEP) != KEEP and site.name not in overruled and site.name not in kept_parents
        ]
        return cls(tuple(entries))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.entries)

    def __reduce__(self) -> tuple[type[Plan], tuple[object]]:
        return type(self), (self.entries,)  # without the hash: string hashes differ between processes

    @cached_property
    def choices(self) -> Mapping[str, Choice]:
        """Choices by site name."""
        return dict(self.entries)

    def __getitem__(self, site: str) -> Choice:
        return self.choices.get(site, KEEP)

    def __str__(self) -> str:
        return "\n".join(f"{site}: {choice}" for site, choice in self.entries)

    def decided(self, inventory: Inventory) -> Iterator[tuple[Site, Choice]]:
        """Sites whose choices take effect, in model order: each leaf, or the site that overrules it."""
        overruled = {leaf for site in inventory.parents if self[site.name] != KEEP for leaf in site.covers}
        for site in inventory.sites:
            if site.is_leaf:
                if site.name not in overruled:
                    yield site, self[site.name]
            elif self[site.name] != KEEP:
                yield site, self[site.name]

    def dropped(self, inventory: Inventory) -> tuple[int, ...]:
        """Indices of the dropped blocks."""
        blocks = (site for site in inventory.parents if site.kind == "block")
        return tuple(site.block for site in blocks if site.block is not None and self[site.name] != KEEP)

    def drops(self, inventory: Inventory) -> int:
        """Number of blocks, attentions and feed-forward networks that are left out."""
        return sum(leaves_out(site, choice) for site, choice in self.decided(inventory))

    def attentions(self, inventory: Inventory) -> tuple[int, ...]:
        """Indices of the remaining blocks whose attention is left out."""
        left = (
            site for site, choice in self.decided(inventory) if site.kind == "attention" and leaves_out(site, choice)
        )
        return tuple(site.block for site in left if site.block is not None)

    def layout(self, inventory: Inventory) -> dict[str, TensorSpec]:
        """Every tensor that ``apply`` writes under this plan, by its name before blocks are renumbered."""
        layout = dict(inventory.rest)
        dropped = self.dropped(inventory)
        for site in inventory.parents:
            if site.block not in dropped:
                layout |= site.rest
        for site, choice in self.decided(inventory):
            layout |= site_layout(site, choice)
        return layout

    def size_bytes(self, inventory: Inventory) -> int:
        """Bytes of the tensors that ``apply`` writes."""
        return total_bytes(self.layout(inventory))

    def check(self, inventory: Inventory, target: Target) -> None:
        """Checks the plan against a model and a target, before any weight is read.

        Raises:
            PlanError: If the model or the target cannot take the plan; the message lists all faults.
        """
        faults = []
        for name, choice in self.entries:
            try:
                fault = site_fault(inventory[name], choice, target)
            except (UnknownNameError, ParedownError) as error:
                fault = str(error)
            if fault:
                faults.append(f"{name}: {fault}")
        blocks = sum(site.kind == "block" for site in inventory.parents)
        dropped = len(self.dropped(inventory))
        if blocks and dropped == blocks:
            faults.append("every block is dropped; keep at least one")
        elif blocks and dropped + len(self.attentions(inventory)) == blocks:
            faults.append("every attention is dropped; keep at least one")
        if faults:
            raise PlanError("the plan does not fit: " + "; ".join(faults))
