"""The plan of least predicted loss under a budget, exactly."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from paredown.space.choice import Choice
from paredown.space.errors import BudgetError
from paredown.space.layouts import leaves_out
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.tensors import total_bytes

Losses = Mapping[tuple[str, Choice], float]
"""Predicted loss of every (site, choice) of a space."""


SECONDS = 60
OUT_OF_TIME = 1
"""Status of `scipy.optimize.milp`."""


class Solver:
    """A multiple-choice knapsack over the sites of a space, solved by HiGHS through `scipy.optimize.milp`.

    Each leaf takes one of its choices or is overruled by one site that covers it; a dropped block takes its norms along.

    Args:
        space: Sites and options.
        gap: Most by which a plan's predicted loss may exceed the least, as a share of it.
    """

    def __init__(self, space: Space, gap: float = 1e-6) -> None:
        self.space = space
        self.gap = gap
        inventory = space.inventory
        self.variables = [(site.name, choice) for site in inventory.sites for choice in space.options[site.name]]
        index = {variable: i for i, variable in enumerate(self.variables)}
        sizes: list[float] = []
        self._of_site: list[slice] = []
        for site in inventory.sites:
            released = total_bytes(site.rest) if site.kind == "block" else 0
            self._of_site.append(slice(len(sizes), len(sizes) + len(space.options[site.name])))
            sizes += [size - released for size in space.sizes(site)]
        self.sizes = np.array(sizes)
        self.fixed = total_bytes(inventory.rest) + sum(total_bytes(site.rest) for site in inventory.parents)
        rows: dict[str, list[int]] = {
            site.name: [index[site.name, choice] for choice in space.options[site.name]] for site in inventory.leaves
        }
        for site in inventory.parents:
            for choice in space.options[site.name]:
                for leaf in site.covers:
                    rows[leaf].append(index[site.name, choice])
        drops = [index[s.name, c] for s in inventory.parents for c in space.options[s.name] if leaves_out(s, c)]
        columns = [column for row in rows.values() for column in row]
        pointers = np.cumsum([0, *(len(row) for row in rows.values())])
        one_each = csr_array((np.ones(len(columns)), columns, pointers), shape=(len(rows), len(self.variables)))
        self._constraints = [LinearConstraint(one_each, 1, 1)]
        if drops:
            row = np.zeros(len(self.variables))
            row[drops] = 1
            self._constraints.append(LinearConstraint(row, 0, space.max_drops))

    def smallest(self) -> Plan:
        """The plan of fewest bytes."""
        return self._plan(self.sizes, None)

    def solve(self, losses: Losses, budget_bytes: int) -> Plan:
        """The plan of least total loss of at most so many bytes; no site takes a choice that another of its own beats in both.

        Raises:
            BudgetError: If no plan is that small.
        """
        values = np.array([losses[variable] for variable in self.variables])
        plan = self._plan(values, budget_bytes)
        size = plan.size_bytes(self.space.inventory)
        if size > budget_bytes:
            raise BudgetError(f"the solver left the budget: {size} > {budget_bytes} bytes; please report this")
        return plan

    def front(self, losses: Losses, budgets: Sequence[int]) -> list[Plan]:
        """One plan a budget, equal ones once, in the order of the budgets."""
        return list(dict.fromkeys(self.solve(losses, budget) for budget in budgets))

    def _plan(self, values: np.ndarray, budget_bytes: int | None) -> Plan:
        constraints = list(self._constraints)
        unit = float(np.gcd.reduce(np.abs(self.sizes).astype(np.int64))) or 1.0
        if budget_bytes is not None:
            room = np.floor((budget_bytes - self.fixed) / unit)
            constraints.append(LinearConstraint(self.sizes / unit, -np.inf, room))
        scale = np.abs(values).max() or 1.0
        with _silent():
            result = milp(
                values / scale * 1e3,
                integrality=np.ones(len(values)),
                bounds=Bounds(0, 1.0 - self._beaten(values)),
                constraints=constraints,
                options={"mip_rel_gap": self.gap, "time_limit": SECONDS},
            )
        if result.x is None and result.status == OUT_OF_TIME:
            raise BudgetError(f"the solver found no plan within {SECONDS} seconds; give the space fewer choices")
        if result.x is None:
            smallest = self.smallest().size_bytes(self.space.inventory)
            raise BudgetError(
                f"no plan meets {budget_bytes:,} bytes: the smallest that the space offers has {smallest:,}; "
                "raise the budget or give the space smaller choices"
            )
        chosen = {self.variables[i][0]: self.variables[i][1] for i in np.flatnonzero(result.x > 0.5)}
        return Plan.of(self.space.inventory, chosen)

    def _beaten(self, values: np.ndarray) -> np.ndarray:
        """Whether another choice of the same site has no more bytes and no more loss; of equal ones the first stays.

        The solver stops within a tolerance, so ties must be broken before it.
        """
        beaten = np.zeros(len(values), dtype=bool)
        for part in self._of_site:
            size, value, place = self.sizes[part], values[part], np.arange(len(values))[part]
            no_worse = (size[:, None] <= size) & (value[:, None] <= value)
            better = (size[:, None] < size) | (value[:, None] < value) | (place[:, None] < place)
            beaten[part] = (no_worse & better).any(0)
        return beaten


@contextmanager
def _silent() -> Iterator[None]:
    """HiGHS writes a line of its own to standard output now and then, which is not its to write to."""
    sys.stdout.flush()
    before = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(before, 1)
        os.close(before)
