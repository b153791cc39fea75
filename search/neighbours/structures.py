"""Structures of plans (the blocks, attentions and feed-forward networks that they overrule) and their neighbours."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from paredown.search.solver.solver import Losses, Solver
from paredown.space.choice import Choice
from paredown.space.errors import BudgetError
from paredown.space.layouts import leaves_out
from paredown.space.plan import Plan

Structure = frozenset[tuple[str, Choice]]
"""The sites of a plan that overrule others, with their choices."""

FORBIDDEN = 1e4
"""Penalty for a choice outside the structure, in sums of the absolute values of all losses."""

TRIES = 20
"""Random changes that are tried before a structure counts as without neighbours."""


class Structures:
    """Neighbours of structures, and the best plan with a given structure.

    Args:
        solver: Solver of the space; its limits beside the bytes apply.
    """

    def __init__(self, solver: Solver) -> None:
        self._solver, self.space = solver, solver.space
        self.parents = {site.name: site for site in self.space.inventory.parents if self.space.options[site.name]}
        self.options = [(name, choice) for name in self.parents for choice in self.space.options[name]]

    def of(self, plan: Plan) -> Structure:
        """Structure of a plan."""
        return frozenset(entry for entry in plan.entries if entry[0] in self.parents)

    def near(self, generator: np.random.Generator, structure: Structure) -> Structure:
        """A random neighbour: one overruling site added, removed or replaced; the same structure if none is found."""
        for _ in range(TRIES if self.options else 0):
            sites = sorted(structure, key=str)
            changed = set(structure)
            kind = generator.integers(3)  # 0: add a site, 1: remove one, 2: replace one
            if kind and sites:
                changed.discard(sites[int(generator.integers(len(sites)))])
            if kind != 1:
                changed.add(self.options[int(generator.integers(len(self.options)))])
            if changed != structure and self.is_allowed(changed):
                return frozenset(changed)
        return structure

    def is_allowed(self, structure: Iterable[tuple[str, Choice]]) -> bool:
        """Whether its sites do not overlap and it leaves out no more than the space allows."""
        found = list(structure)
        covered = [leaf for name, _ in found for leaf in self.parents[name].covers]
        drops = sum(leaves_out(self.parents[name], choice) for name, choice in found)
        return len(set(covered)) == len(covered) and drops <= self.space.max_drops

    def solved(self, structure: Structure, losses: Losses, budget_bytes: int) -> Plan | None:
        """The plan of least total loss with this structure; None if none fits the budget."""
        dear = FORBIDDEN * sum(map(abs, losses.values()))
        overruled = {leaf for name, _ in structure for leaf in self.parents[name].covers}
        weighed = {
            (name, choice): loss
            + dear * ((name, choice) not in structure if name in self.parents else name in overruled)
            for (name, choice), loss in losses.items()
        }
        try:
            plan = self._solver.solve(weighed, budget_bytes)
        except BudgetError:
            return None
        return plan if self.of(plan) == structure else None
