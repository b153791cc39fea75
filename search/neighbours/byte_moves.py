"""Local moves: plans that differ from a parent in the choices of a few leaf sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from paredown.search.solver.solver import Losses, Solver
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan

SITES = (1, 2, 2, 3)
"""Number of sites that a move changes, drawn uniformly from these values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A change of a plan in a few leaf sites.

    Attributes:
        parent: The plan that is changed.
        changes: New choices by site.
        size_bytes: Size of the new plan.
        loss: Predicted loss of the new plan, summed over its sites.
    """

    parent: Plan
    changes: Mapping[str, Choice]
    size_bytes: int
    loss: float


class Moves:
    """Draws moves within a space.

    Args:
        solver: Solver of the space; gives the bytes of every choice.
        losses: Returns the predicted loss of every (site, choice) in plans of a given size [bytes].
    """

    def __init__(self, solver: Solver, losses: Callable[[int], Losses]) -> None:
        self.space, self._solver, self._losses = solver.space, solver, losses
        self._places = {site.name: place for place, site in enumerate(self.space.inventory.sites)}
        self._sites = [site.name for site in self.space.inventory.leaves if len(self.space.options[site.name]) > 1]

    def drawn(
        self, generator: np.random.Generator, parents: Mapping[Plan, int], room: int, count: int
    ) -> Iterator[Move]:
        """Random moves whose new plans fit in the room; at most ``count``, as those that do not fit are skipped.

        Args:
            generator: Random number generator.
            parents: Plans of the space with their bytes; moves keep their drops and structures.
            room: Most bytes of a new plan.
            count: Number of moves that are tried.
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
        """The new plan of a move."""
        choices = {**move.parent.choices, **move.changes}
        for name, choice in move.changes.items():
            if choice == KEEP:
                del choices[name]
        return Plan(tuple(sorted(choices.items(), key=lambda entry: self._places[entry[0]])))
