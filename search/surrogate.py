"""What measured plans teach about the sensitivities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paredown.search.record import Record
from paredown.search.solver import Losses
from paredown.space.choice import Choice
from paredown.space.plan import Plan
from paredown.space.site import Inventory

COMMON, SITE, CHOICE, NOISE = 0.3, 0.3, 0.15, 0.03
"""Widths, as shares of the sensitivity: of an error that all share, that a site's choices share, of one choice; and of a plan's
remainder, which additivity does not explain."""
FLOOR = 0.05


class Surrogate:
    """A Bayesian additive model: the loss of a plan is the sum of its sensitivities, each times a multiplier around one.

    The multipliers are jointly normal; every measured plan is one linear equation in them, with noise in proportion to
    the loss. Posterior mean and draws are losses that the solver takes in place of the sensitivities.

    Source:
        Bayesian linear regression: Bishop, 2006, "Pattern Recognition and Machine Learning", section 3.3.
    """

    def __init__(self, inventory: Inventory, losses: Losses, records: Sequence[Record]) -> None:
        self.inventory = inventory
        self.losses = losses
        seen = {pair for record in records for pair in self._pairs(record.plan) if losses.get(pair, 0.0) > 0}
        self.pairs = sorted(seen, key=lambda pair: (pair[0], str(pair[1])))
        self._index = {pair: i for i, pair in enumerate(self.pairs)}
        known = [record for record in records if record.loss > 0 and all(pair in losses for pair in self._pairs(record.plan))]
        rows = np.array([self._row(record.plan) / record.loss for record in known]).reshape(len(known), len(self.pairs))
        same = np.array([[a[0] == b[0] for b in self.pairs] for a in self.pairs], dtype=float).reshape(len(self.pairs), len(self.pairs))
        prior = COMMON**2 + SITE**2 * same + CHOICE**2 * np.eye(len(self.pairs))
        gain = prior @ rows.T
        system = rows @ gain + NOISE**2 * np.eye(len(known))
        solved = np.linalg.solve(system, np.column_stack([1 - rows.sum(1), gain.T])) if known else np.zeros((0, len(self.pairs) + 1))
        self.mean: NDArray[np.float64] = 1 + gain @ solved[:, 0]
        self.covariance: NDArray[np.float64] = prior - gain @ solved[:, 1:]

    def _pairs(self, plan: Plan) -> list[tuple[str, Choice]]:
        return [(site.name, choice) for site, choice in plan.decided(self.inventory)]

    def _row(self, plan: Plan) -> NDArray[np.float64]:
        row = np.zeros(len(self.pairs))
        for pair in self._pairs(plan):
            if pair in self._index:
                row[self._index[pair]] = self.losses[pair]
        return row

    def expected(self) -> dict[tuple[str, Choice], float]:
        """Losses under the posterior mean."""
        return self._scaled(self.mean)

    def draw(self, generator: np.random.Generator) -> dict[tuple[str, Choice], float]:
        """Losses under one draw from the posterior."""
        if not self.pairs:
            return dict(self.losses)
        factor = np.linalg.cholesky(self.covariance + 1e-9 * np.eye(len(self.pairs)))
        return self._scaled(self.mean + factor @ generator.standard_normal(len(self.pairs)))

    def _scaled(self, multipliers: NDArray[np.float64]) -> dict[tuple[str, Choice], float]:
        scaled = dict(self.losses)
        by_site: dict[str, list[float]] = {}
        for (site, _), multiplier in zip(self.pairs, multipliers, strict=True):
            by_site.setdefault(site, []).append(multiplier)
        common = float(np.mean(multipliers)) if len(multipliers) else 1.0
        for pair, loss in self.losses.items():
            if pair in self._index:
                multiplier = float(multipliers[self._index[pair]])
            else:  # a choice that no plan took: as its site's others, drawn towards what all share
                multiplier = float(np.mean(by_site[pair[0]])) if pair[0] in by_site else common
            scaled[pair] = loss * max(multiplier, FLOOR)
        return scaled

    def predict(self, plan: Plan, losses: Losses) -> float | None:
        """Loss of a plan as the sum of such losses; None if it takes a choice that has none."""
        pairs = self._pairs(plan)
        return float(sum(losses[pair] for pair in pairs)) if all(pair in losses for pair in pairs) else None
