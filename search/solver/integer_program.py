"""The solver's knapsack as an integer program for HiGHS; it allows several budgets and gives their shadow prices."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array

from paredown.space.errors import BudgetError

Floats = NDArray[np.float64]

SECONDS = 60
"""Time limit of HiGHS [s]."""

TOLERANCE = 2e-6
"""Safety margin on a resource, as a fraction of its largest cost; slightly more than HiGHS may overrun a limit.

Integer costs need no margin: their smallest step exceeds it.
"""

OUT_OF_TIME = 1
"""Status of `scipy.optimize.milp` when the time limit is reached."""


class IntegerProgram:
    """Binary program over ``n`` variables: exactly one per row, limited resources, a limited number of counted ones.

    Args:
        rows: For each leaf, the variables that decide it.
        sites: Index of each variable's site, ``(n,)``.
        resources: Cost of each variable, ``(n,)``, for each resource.
        counted: Whether a variable counts towards ``most_counted``, ``(n,)``.
        most_counted: Most counted variables in a solution.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        sites: NDArray[np.int64],
        resources: Sequence[Floats],
        counted: NDArray[np.bool_],
        most_counted: int,
    ) -> None:
        self.sites, self.resources = sites, resources
        columns = [column for row in rows for column in row]
        pointers = np.cumsum([0, *(len(row) for row in rows)])
        self._one_each = csr_array((np.ones(len(columns)), columns, pointers), shape=(len(rows), len(sites)))
        self._units = [_unit(costs) for costs in resources]
        scaled = [costs / unit for costs, unit in zip(resources, self._units, strict=True)]
        self._most = csr_array(np.array([counted.astype(np.float64), *scaled]))
        self._most_counted = float(most_counted)

    def solve(self, values: Floats, rooms: Sequence[float], gap: float) -> NDArray[np.int64] | None:
        """Indices of the variables of least total value, ascending; None if no solution keeps to the rooms.

        Args:
            values: Value of each variable, ``(n,)``.
            rooms: Most cost of each resource.
            gap: Relative optimality gap.

        Raises:
            BudgetError: If no solution is found within `SECONDS`.
        """
        with _silent():
            result = milp(
                values / (np.abs(values).max(initial=0.0) or 1.0) * 1e3,
                integrality=np.ones(len(values)),
                bounds=Bounds(0, 1.0 - self._beaten(values)),
                constraints=[
                    LinearConstraint(self._one_each, 1, 1),
                    LinearConstraint(self._most, -np.inf, self._upper(rooms)),
                ],
                options={"mip_rel_gap": gap, "time_limit": SECONDS},
            )
        if result.x is None and result.status == OUT_OF_TIME:
            raise BudgetError(f"the solver found no plan within {SECONDS} seconds; give the space fewer choices")
        return None if result.x is None else np.flatnonzero(result.x > 0.5)

    def prices(self, values: Floats, rooms: Sequence[float]) -> list[float] | None:
        """Shadow price of each resource in the linear relaxation: value saved per further unit; None if infeasible."""
        scale = np.abs(values).max(initial=0.0) or 1.0
        upper = self._upper(rooms)
        bounded = np.isfinite(upper)
        with _silent():
            result = linprog(
                values / scale,
                A_ub=self._most[bounded],
                b_ub=upper[bounded],
                A_eq=self._one_each,
                b_eq=np.ones(self._one_each.shape[0]),
            )
        if result.x is None:
            return None
        marginals = np.zeros(len(upper))
        marginals[bounded] = result.ineqlin.marginals
        return [-float(marginal) * scale / unit for marginal, unit in zip(marginals[1:], self._units, strict=True)]

    def _upper(self, rooms: Sequence[float]) -> Floats:
        shares = [room / unit for room, unit in zip(rooms, self._units, strict=True)]
        rounded = [
            float(np.floor(share)) if _is_whole(costs) else share - margin(costs) / unit
            for share, costs, unit in zip(shares, self.resources, self._units, strict=True)
        ]
        return np.array([self._most_counted, *rounded])

    def _beaten(self, values: Floats) -> NDArray[np.bool_]:
        """Whether another choice of the same site dominates each variable in costs and value, ``(n,)``.

        Of equal choices the first stays: HiGHS stops within a tolerance, so ties must be broken beforehand.
        """
        beaten = np.zeros(len(values), dtype=bool)
        costs = np.array([*self.resources, values])
        for place in np.split(np.argsort(self.sites, kind="stable"), np.flatnonzero(np.diff(np.sort(self.sites))) + 1):
            cost = costs[:, place]
            no_worse = (cost[:, :, None] <= cost[:, None]).all(0)
            better = (cost[:, :, None] < cost[:, None]).any(0) | (place[:, None] < place)
            beaten[place] = (no_worse & better).any(0)
        return beaten


def margin(costs: Floats) -> float:
    """Amount of a resource left unused so that rounding never exceeds its limit; 0 for integer costs."""
    return 0.0 if _is_whole(costs) else TOLERANCE * float(np.abs(costs).max(initial=0.0))


def _is_whole(costs: Floats) -> bool:
    return bool((costs == np.rint(costs)).all())


def _unit(costs: Floats) -> float:
    """Unit that costs are scaled by: the greatest common divisor of integer costs, otherwise the largest cost."""
    if len(costs) and _is_whole(costs):
        return float(np.gcd.reduce(np.abs(costs).astype(np.int64))) or 1.0
    return float(np.abs(costs).max(initial=0.0)) or 1.0


@contextmanager
def _silent() -> Iterator[None]:
    """Discards standard output at the file descriptor, since HiGHS occasionally prints to it."""
    sys.stdout.flush()
    before = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(before, 1)
        os.close(before)
