"""Plans near others: one site given more bytes, others fewer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from paredown.search.solver import Losses, Solver
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan

SITES = (1, 2, 2, 3)
"""How many sites a move changes: drawn from these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A plan that differs from its parent in few leaf sites.

    Attributes:
        parent: The plan that was changed.
        changes: New choices by site.
        size_bytes: Of the new plan.
        loss: Of the new plan, the sum over its sites.
    """

    parent: Plan
    changes: Mapping[str, Choice]
    size_bytes: int
    loss: float


class Moves:
    """Draws moves within a space.

    Args:
        solver: Knows the bytes of every choice.
        losses: Of every site and choice in plans of so many bytes: what the sums are of.
    """

    def __init__(self, solver: Solver, losses: Callable[[int], Losses]) -> None:
        self.space, self._solver, self._losses = solver.space, solver, losses
        self._places = {site.name: place for place, site in enumerate(self.space.inventory.sites)}
        self._sites = [site.name for site in self.space.inventory.leaves if len(self.space.options[site.name]) > 1]

    def drawn(
        self, generator: np.random.Generator, parents: Mapping[Plan, int], room: int, count: int
    ) -> Iterator[Move]:
        """Moves from plans of the space whose children take no more bytes than there is room.

        Args:
            generator: Decides.
            parents: Plans with their bytes; their blocks and structures stay as they are.
            room: Most bytes of the children.
            count: How many are tried.
        """
        if not parents or not self._sites:
            return
        inventory, options, plans = self.space.inventory, self.space.options, list(parents)
        decided = [{site.name: choice for site, choice in plan.decided(inventory)} for plan in plans]
        losses = [self._losses(size) for size in parents.values()]
        sums = [sum(known[entry] for entry in choices.items()) for known, choices in zip(losses, decided, strict=True)]
        for index in generator.integers(len(plans), size=count).tolist():
            wanted = SITES[int(generator.integers(len(SITES)))]
            changes: dict[str, Choice] = {}
            size, loss = parents[plans[index]], sums[index]
            for place in generator.integers(len(self._sites), size=wanted).tolist():
                name = self._sites[place]
                if (old := decided[index].get(name)) is None or name in changes:
                    continue
                new = options[name][int(generator.integers(len(options[name])))]
                if new != old:
                    changes[name] = new
                    size += self._solver.added_bytes(name, old, new)
                    loss += losses[index][name, new] - losses[index][name, old]
            if changes and size <= room:
                yield Move(parent=plans[index], changes=changes, size_bytes=size, loss=loss)

    def plan(self, move: Move) -> Plan:
        """The plan that a move makes."""
        choices = {**move.parent.choices, **move.changes}
        for name, choice in move.changes.items():
            if choice == KEEP:
                del choices[name]
        return Plan(tuple(sorted(choices.items(), key=lambda entry: self._places[entry[0]])))
