"""Plans as feature rows of the surrogate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paredown.search.solver.solver import Losses
from paredown.search.trial import Trial
from paredown.space.choice import Choice
from paredown.space.plan import Plan
from paredown.space.site import Inventory

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WHOLE_SITES = ("all", "block", "role")
"""Kinds of groups in which all pairs of a site are in the same group."""

TINY = 1e-9
"""Lower bound on a sensitivity, as a fraction of the largest."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """A plan as indices into a basis.

    Attributes:
        columns: Indices of the pairs that the plan takes; pairs without a loss are left out.
        kept: Indices of the leaves that lose nothing.
    """

    columns: Integers
    kept: Integers


class Basis:
    """The (site, choice) pairs that have a loss, and the groups of pairs whose sensitivities share an error.

    Args:
        inventory: The model's sites.
        losses: Sensitivities.

    Attributes:
        pairs: (site, choice) pairs with a positive loss, ``(p,)``.
        logs: Logarithms of their losses, ``(p,)``.
        groups: Group index of each pair, ``(p,)``, for each kind of group.
    """

    def __init__(self, inventory: Inventory, losses: Losses) -> None:
        self.losses = losses
        self.pairs = [pair for pair, loss in losses.items() if loss > 0]
        self._index = {pair: i for i, pair in enumerate(self.pairs)}
        values = np.array([losses[pair] for pair in self.pairs], dtype=np.float64)
        self.logs: Floats = np.log(np.maximum(values, TINY * values.max(initial=TINY)))
        self.groups = _groups(inventory, self.pairs)
        first = np.unique(self.groups["site"], return_index=True)[1]  # first pair of each site
        self._sorted = {name: _sorted(self.groups[name][first]) for name in WHOLE_SITES}
        self._sorted |= {name: _sorted(self.groups[name]) for name in ("site", "choice")}
        self._leaves = {site.name: i for i, site in enumerate(inventory.leaves)}
        self._covers = {
            site.name: [self._leaves[leaf] for leaf in site.covers or (site.name,)] for site in inventory.sites
        }
        self._spread = np.zeros((len(self.pairs), len(self._leaves)))
        for i, (site, _) in enumerate(self.pairs):
            self._spread[i, self._covers[site]] = 1 / len(self._covers[site])
        self._rows: dict[int, tuple[Plan, Row | None]] = {}

    def row(self, plan: Plan) -> Row | None:
        """The row of a plan; None if the plan takes a choice that has no sensitivity."""
        paid: list[int] = []
        kept = np.ones(len(self._leaves), dtype=bool)
        for entry in plan.entries:
            column = self._index.get(entry)
            if column is not None:
                paid.append(column)
                kept[self._covers[entry[0]]] = False
            elif entry not in self.losses:
                return None
        return Row(columns=np.array(paid, dtype=np.int64), kept=np.flatnonzero(kept))

    def row_of(self, trial: Trial) -> Row | None:
        """The row of a trial's plan; cached by trial number."""
        found = self._rows.get(trial.number)
        if found is None or found[0] is not trial.plan:
            found = self._rows[trial.number] = trial.plan, self.row(trial.plan)
        return found[1]

    def levels(self, rows: Sequence[Row]) -> Floats:
        """Logarithm of each plan's sum of unscaled sensitivities, ``(n,)``."""
        values = np.exp(self.logs)
        return np.log(np.maximum([values[row.columns].sum() for row in rows], 1e-300))

    def shares(self, rows: Sequence[Row], multipliers: Floats, levels: Floats) -> tuple[Floats, Floats]:
        """Each pair's share of a plan's sum of scaled sensitivities, ``(n, p)``, and the logs of the sums, ``(n,)``.

        Args:
            rows: Plans.
            multipliers: Log multipliers, ``(2, p)``: intercept at level zero, and slope per level.
            levels: Levels of the plans, ``(n,)``.
        """
        shares, logs = np.zeros((len(rows), len(self.pairs))), self.logs + multipliers[0]
        for share, row, level in zip(shares, rows, levels, strict=True):
            share[row.columns] = np.exp(logs[row.columns] + level * multipliers[1, row.columns])
        sums = np.maximum(shares.sum(1), 1e-300)
        return shares / sums[:, None], np.log(sums)

    def summed(self, shares: Floats) -> dict[str, Floats]:
        """Shares ``(n, p)`` summed within groups: one ``(n, groups)`` array for each kind of group."""
        sites = _reduced(shares, *self._sorted["site"])
        parts = {"site": sites, "choice": _reduced(shares, *self._sorted["choice"]), "pair": shares}
        return {name: parts[name] if name in parts else _reduced(sites, *self._sorted[name]) for name in self.groups}

    def alike(self, rows: Sequence[Row], others: Sequence[Row], shares: Floats) -> Floats:
        """Similarity of two sets of plans, ``(n, m)``: share of the loss on leaves where both do the same, in [0, 1].

        Args:
            rows: The ``n`` plans.
            others: The ``m`` plans they are compared with.
            shares: Shares of measured plans; their mean over plans weights the leaves.
        """
        weights = shares.mean(0) @ self._spread
        heavy = np.concatenate([self._spread @ weights * (self._spread > 0).sum(1), weights]) / max(
            float(weights.sum()), 1e-300
        )
        root = np.sqrt(heavy).astype(np.float32)
        same: Floats = (self._marked(rows) * root) @ (self._marked(others) * root).T
        return np.clip(same.astype(np.float64), 0, 1)

    def _marked(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Indicator matrix, ``(n, p + leaves)``: 1 where a plan takes a pair or keeps a leaf."""
        marked = np.zeros((len(rows), len(self.pairs) + len(self._leaves)), dtype=np.float32)
        for mark, row in zip(marked, rows, strict=True):
            mark[row.columns] = 1
            mark[len(self.pairs) + row.kept] = 1
        return marked


def _groups(inventory: Inventory, pairs: Sequence[tuple[str, Choice]]) -> dict[str, Integers]:
    blocks = {site.name: site.block for site in inventory.sites}

    def numbered(keys: Sequence[object]) -> Integers:
        numbers: dict[object, int] = {}
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)

    return {
        "all": numbered([0] * len(pairs)),
        "block": numbered([blocks[site] for site, _ in pairs]),
        "role": numbered([site.partition(f".{blocks[site]}.")[2] or site for site, _ in pairs]),
        "site": numbered([site for site, _ in pairs]),
        "choice": numbered([choice for _, choice in pairs]),
        "pair": np.arange(len(pairs)),
    }


def _sorted(members: Integers) -> tuple[Integers, Integers]:
    """An order that makes the members of each group contiguous, and the start of each group in it."""
    order = np.argsort(members, kind="stable")
    return order, np.searchsorted(members[order], np.arange(int(members.max(initial=-1)) + 1))


def _reduced(values: Floats, order: Integers, starts: Integers) -> Floats:
    """The columns of ``(n, m)`` summed by group."""
    summed: Floats = np.add.reduceat(values[:, order], starts, axis=1)
    return summed
