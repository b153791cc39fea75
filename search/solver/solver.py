"""Exact solver: the plan of least predicted loss under a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from paredown.search.solver.branch_and_bound import solve
from paredown.search.solver.forest import Forest
from paredown.search.solver.integer_program import IntegerProgram, margin
from paredown.search.solver.limits import Limit
from paredown.search.solver.refusal import refusal
from paredown.space.choice import KEEP, Choice
from paredown.space.errors import BudgetError, EvaluationError, StudyError
from paredown.space.layouts import leaves_out, stored_bytes
from paredown.space.plan import Plan
from paredown.space.space import Space

Losses = Mapping[tuple[str, Choice], float]
"""Predicted loss of every (site, choice) of a space."""

LOSS_BITS = 50
"""Bits of the integers that losses are scaled and rounded to, so that equal sums compare equal."""


class Solver:
    """Multiple-choice knapsack over the sites of a space.

    Each leaf takes one of its choices or is overruled by one site that covers it. A dropped block also frees its norms.
    Sites that overrule leaves are nested or disjoint. With bytes as the only budget, branch and bound is exact; further
    limits need an integer program.

    Args:
        space: Sites and options.
        gap: With further limits, most relative excess of a plan's predicted loss over the optimum.
        limits: Limits beside the bytes.

    Raises:
        StudyError: If a limit has no cost for one of the choices, or two limits share a name.
    """

    def __init__(self, space: Space, gap: float = 1e-6, limits: Sequence[Limit] = ()) -> None:
        self.space, self.gap, self.limits = space, gap, tuple(limits)
        inventory = space.inventory
        self.variables = [(site.name, choice) for site in inventory.sites for choice in space.options[site.name]]
        sizes = [stored_bytes(site, choice) for site in inventory.sites for choice in space.options[site.name]]
        self.sizes = np.array(sizes)
        self._sizes = dict(zip(self.variables, sizes, strict=True))
        self.fixed = inventory.rest_bytes
        names = [limit.name for limit in self.limits]
        if len({*names, "size_bytes"}) <= len(names):
            raise StudyError(f"two limits have one name ({', '.join(['size_bytes', *names])}); name each once")
        self._costs = [self._row(limit.costs, f"limit {limit.name}") for limit in self.limits]
        self._arrange()

    def _arrange(self) -> None:
        """Arranges the sites as a forest: leaves first, then parents by the number of leaves that they cover."""
        inventory, options = self.space.inventory, self.space.options
        sites = [
            *inventory.leaves,
            *sorted((s for s in inventory.parents if options[s.name]), key=lambda s: len(s.covers)),
        ]
        column: dict[str, int] = {}
        for i, (name, _) in enumerate(self.variables):
            column.setdefault(name, i)
        self._places = np.full((len(sites), max((len(options[site.name]) for site in sites), default=0)), -1)
        self._parents = np.full(len(sites), -1)
        top: dict[str, int] = {}
        for node, site in enumerate(sites):
            count = len(options[site.name])
            self._places[node, :count] = np.arange(column.get(site.name, 0), column.get(site.name, 0) + count)
            for below in {top[leaf] for leaf in site.covers}:
                self._parents[below] = node
            top |= dict.fromkeys(site.covers or (site.name,), node)
        self._is_leaf = np.array([site.is_leaf for site in sites], dtype=bool)
        by_name = {site.name: site for site in sites}
        self._drops = np.array([leaves_out(by_name[name], choice) for name, choice in self.variables], dtype=bool)

    def smallest(self) -> Plan:
        """The plan with the fewest bytes.

        Raises:
            BudgetError: If no plan meets the limits.
        """
        return self._smallest[0]

    @cached_property
    def _smallest(self) -> tuple[Plan, int]:
        """The plan with the fewest bytes, and its size [bytes]."""
        taken = self._taken(self.sizes, None)
        if taken is None:
            raise self._refusal(None)
        return self._plan(taken), self.fixed + int(self.sizes[taken].sum())

    def size_bytes(self, plan: Plan) -> int:
        """Bytes of a plan of the space; equal to `Plan.size_bytes` but faster."""
        return self.fixed + sum(self._sizes[site.name, choice] for site, choice in plan.decided(self.space.inventory))

    def added_bytes(self, site: str, old: Choice, new: Choice) -> int:
        """Change of a plan's size when a leaf's choice changes from ``old`` to ``new`` [bytes]."""
        return self._sizes[site, new] - self._sizes[site, old]

    def solve(self, losses: Losses, budget_bytes: int) -> Plan:
        """The plan of least total loss within the budget; ties go to the fewest bytes. Deterministic.

        Raises:
            BudgetError: If no plan meets the budget and the limits; the message says what is possible.
            EvaluationError: If a loss is not finite.
        """
        taken = self._taken(self._row(losses, "the losses"), budget_bytes)
        if taken is None:
            raise self._refusal(budget_bytes)
        if (size := self.fixed + int(self.sizes[taken].sum())) > budget_bytes:
            raise BudgetError(f"the solver left the budget: {size} > {budget_bytes} bytes; please report this")
        return self._plan(taken)

    def front(self, losses: Losses, budgets: Sequence[int]) -> list[Plan]:
        """One plan per budget, in the order of the budgets, without duplicates."""
        return list(dict.fromkeys(self.solve(losses, budget) for budget in budgets))

    def prices(self, losses: Losses, budget_bytes: int) -> dict[str, float]:
        """Shadow prices: loss saved by one more unit of ``size_bytes`` and of each limit, by its name.

        They are the multipliers of the linear relaxation. They hold for changes of a few percent of the budget that
        exceed the bytes of a single choice.

        Raises:
            BudgetError: If no plan meets the budget.
        """
        values = self._row(losses, "the losses")
        found = self._program.prices(values, self._rooms(budget_bytes))
        if found is None:
            raise self._refusal(budget_bytes)
        return dict(zip(["size_bytes", *(limit.name for limit in self.limits)], found, strict=True))

    def _row(self, values: Mapping[tuple[str, Choice], float], what: str) -> NDArray[np.float64]:
        try:
            row = np.array([values[variable] for variable in self.variables], dtype=np.float64)
        except KeyError as error:
            site, choice = error.args[0]
            raise StudyError(
                f"{what}: no value for {choice} at {site}; give a number for every choice of the space"
            ) from None
        if not np.isfinite(row).all():
            site, choice = self.variables[int(np.flatnonzero(~np.isfinite(row))[0])]
            raise EvaluationError(f"{what}: the value of {choice} at {site} is not finite; leave it out of the space")
        return row

    def _taken(self, values: NDArray[np.float64], budget_bytes: int | None) -> NDArray[np.int64] | None:
        """Indices of the variables in the best plan, ascending; None if no plan is feasible."""
        if self.limits:
            return self._program.solve(values, self._rooms(budget_bytes), self.gap)
        room = int(np.abs(self.sizes).sum()) if budget_bytes is None else budget_bytes - self.fixed
        whole = np.rint(values * (2.0**LOSS_BITS / (np.abs(values).max(initial=0.0) or 1.0))).astype(np.int64)
        offered = self._places >= 0
        pick = solve(
            Forest(
                parents=self._parents,
                is_leaf=self._is_leaf,
                losses=np.where(offered, whole[self._places], 0),
                sizes=np.where(offered, self.sizes.astype(np.int64)[self._places], 0),
                offered=offered,
                counted=offered & self._drops[self._places],
                most_counted=self.space.max_drops,
            ),
            room,
        )
        if pick is None:
            return None
        nodes = np.flatnonzero(pick.places >= 0)
        return np.sort(self._places[nodes, pick.places[nodes]])

    @cached_property
    def _program(self) -> IntegerProgram:
        index = {variable: i for i, variable in enumerate(self.variables)}
        rows = {
            site.name: [index[site.name, c] for c in self.space.options[site.name]]
            for site in self.space.inventory.leaves
        }
        for site in self.space.inventory.parents:
            for leaf in site.covers:
                rows[leaf] += [index[site.name, choice] for choice in self.space.options[site.name]]
        sites = np.unique([name for name, _ in self.variables], return_inverse=True)[1]
        return IntegerProgram(list(rows.values()), sites, [self.sizes, *self._costs], self._drops, self.space.max_drops)

    def _rooms(self, budget_bytes: int | None) -> list[float]:
        return [
            np.inf if budget_bytes is None else budget_bytes - self.fixed,
            *(limit.most - limit.fixed for limit in self.limits),
        ]

    def _plan(self, taken: NDArray[np.int64]) -> Plan:
        return Plan(tuple(self.variables[i] for i in taken if self.variables[i][1] != KEEP))

    def _refusal(self, budget_bytes: int | None) -> BudgetError:
        """The error that names the budget or limit that no plan meets, and the least value that is feasible."""
        free = Solver(self.space)
        for limit, costs in zip(self.limits, self._costs, strict=True):
            taken = free._taken(costs, None)
            least = np.inf if taken is None else limit.fixed + float(costs[taken].sum())
            if least > limit.most - margin(costs):
                return BudgetError(
                    f"no plan meets {limit.name} {limit.most:.6g}: the least that the space offers is {least:.6g}; "
                    "raise the limit or give the space choices that cost less of it"
                )
        together = " and ".join(f"{limit.name} {limit.most:.6g}" for limit in self.limits)
        if budget_bytes is None:
            return BudgetError(f"no plan meets {together} together; raise one of them")
        if self.limits and free._smallest[1] <= budget_bytes:
            smallest = f"the smallest that keeps to the others has {self._smallest[1]:,}"
            return BudgetError(
                f"no plan meets {budget_bytes:,} bytes and {together} together: {smallest}; raise one of them"
            )
        return refusal(budget_bytes, free._smallest[1], self.space.inventory.original_bytes)
