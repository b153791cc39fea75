"""What measured plans teach about the sensitivities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from paredown.search.basis import Basis, Row
from paredown.search.pareto import lower_left
from paredown.search.record import Record
from paredown.search.rungs import on_whole_set
from paredown.space.choice import Choice
from paredown.space.plan import Plan

Floats = NDArray[np.float64]

WIDTHS = {
    "all": 0.3,
    "block": 0.15,
    "role": 0.15,
    "site": 0.15,
    "choice": 0.15,
    "pair": 0.1,
    "all by level": 0.1,
    "block by level": 0.2,
    "role by level": 0.1,
    "site by level": 0.05,
    "remainder": 0.1,
    "noise": 0.01,
}
"""Prior standard deviations of the logarithm: of an error that all sensitivities share, those of a block, of a role in the block, of a
site, of one choice wherever it is taken, of a pair alone; of how the first four change where a plan loses e times as much; of what no
pair explains, alike for plans that are alike; and of what nothing explains. Measured plans teach how far from them the truth is."""

BY_LEVEL = " by level"

FACTORS = (1 / 3, 1.0, 3.0)
PASSES = 2
STEPS = 3
"""Gauss-Newton steps to the most probable multipliers."""

FEWEST, MOST = 128, 512
SHARES = 460_000
"""Trials that it learns from at most: those on the front, and the latest; so many that what they weigh, a number for each pair of a site
and a choice, are no more than that, but within these bounds."""

MOST_FOR_WIDTHS = 96
REACH = 0.3
"""Of plans whose sites carry so great a share of the loss and differ, the remainders are alike by 1/e."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Log losses of plans: expected, and how uncertain; each ``(n,)``."""

    mean: Floats
    spread: Floats


class Surrogate:
    """The loss of a plan is the sum of its sensitivities, each times a multiplier around one, and a remainder; a Gaussian process.

    The logarithms of the multipliers are jointly normal: pairs of a block, a role, a site, or with the same choice err alike. They
    are linear in the plan's level, the logarithm of the sum of its sensitivities: what an error in an early block costs depends on how
    much the later ones lose. The remainder is alike for plans that are alike. Widths are learned: those of greatest posterior
    probability on a coarse grid.

    Args:
        basis: Sensitivities.
        records: Measured trials; those on lower rungs count for as much as rungs tell.

    Source:
        Rasmussen & Williams, 2006, "Gaussian Processes for Machine Learning", sections 2.2, 2.7 and 5.4; the sum in the logarithm is
        linearised at the most probable multipliers (Laplace's approximation).
    """

    def __init__(self, basis: Basis, records: Sequence[Record]) -> None:
        self.basis = basis
        self.widths = dict(WIDTHS)
        self._multipliers: Floats = np.zeros(
            (2, len(basis.pairs))
        )  # their logarithms at the middle level, and what a level adds
        self._middle = 0.0
        self._front = np.zeros((1, 2))
        most = min(max(SHARES // max(len(basis.pairs), 1), FEWEST), MOST)
        chosen = latest([record for record in records if record.loss > 0], most)
        known = [(record, row) for record in chosen if (row := basis.row_of(record)) is not None and len(row.columns)]
        self._rows = [row for _, row in known] if any(record.whole for record, _ in known) else []
        if self._rows:
            self._fit([record for record, _ in known])

    def expected(self, size_bytes: int) -> dict[tuple[str, Choice], float]:
        """Losses in plans of about that size, under the most probable multipliers."""
        return self._scaled(self._multipliers, size_bytes)

    def draw(self, generator: np.random.Generator, size_bytes: int) -> dict[tuple[str, Choice], float]:
        """Losses in plans of about that size, under one draw from the posterior.

        Source:
            Wilson et al., 2020, "Efficiently Sampling Functions from Gaussian Process Posteriors", arXiv 2002.09309, section 3.1:
            a draw from the prior, corrected by what was measured (Matheron's rule).
        """
        drawn = np.zeros_like(self._multipliers)
        for name, group, by_level in self._kinds:
            members = self.basis.groups[group]
            drawn[by_level] += self.widths[name] * generator.standard_normal(int(members.max(initial=-1)) + 1)[members]
        if not self._rows:
            return self._scaled(drawn, size_bytes)
        rest = np.linalg.cholesky(self._unexplained) @ generator.standard_normal(len(self._rows))
        return self._scaled(
            drawn + self._back(cho_solve(self._factor, self._targets - self._explained(drawn) - rest)), size_bytes
        )

    def predict(self, plans: Sequence[Plan]) -> Prediction:
        """Of plans whose choices all have a sensitivity."""
        rows = [row for plan in plans if (row := self.basis.row(plan)) is not None]
        levels = self.basis.levels(rows) - self._middle if self._rows else np.zeros(len(rows))
        shares, sums = self.basis.shares(rows, self._multipliers, levels)
        summed = self._summed(shares, levels)
        variance = self.widths["remainder"] ** 2 + sum(
            self.widths[name] ** 2 * np.square(each).sum(1) for name, each in summed.items()
        )
        if not self._rows:
            return Prediction(mean=sums, spread=np.sqrt(variance))
        remainder = self.widths["remainder"] ** 2 * self._alike(rows, self._rows)
        cross = remainder + sum(self.widths[name] ** 2 * each @ self._known[name].T for name, each in summed.items())
        variance -= (cross * cho_solve(self._factor, cross.T).T).sum(1)
        return Prediction(mean=sums + remainder @ self._weights, spread=np.sqrt(np.maximum(variance, 1e-8)))

    def predicted_loss(self, plan: Plan) -> float | None:
        """Of one plan; None if it takes a choice that has no sensitivity."""
        row = self.basis.row(plan)
        if row is None:
            return None
        return float(np.exp(self.predict([plan]).mean[0])) if len(row.columns) else 0.0

    def _fit(self, records: Sequence[Record]) -> None:
        logs, spreads = on_whole_set(records)
        levels = self.basis.levels(self._rows)
        self._middle = float(np.median(levels))
        self._levels = levels - self._middle
        front = lower_left([(record.size_bytes, loss) for record, loss in zip(records, logs, strict=True)])
        self._front = np.array(sorted((records[i].size_bytes, self._levels[i]) for i in front))
        alike = None
        for step in range(STEPS):
            self._shares, sums = self.basis.shares(self._rows, self._multipliers, self._levels)
            if alike is None:
                self._first_shares = self._shares
                alike = self._alike(self._rows, self._rows)
            self._known = self._summed(self._shares, self._levels)
            self._targets = logs - sums + self._explained(self._multipliers)
            grams = {name: each @ each.T for name, each in self._known.items()}
            grams |= {"remainder": alike, "noise": np.eye(len(logs))}
            if step == STEPS - 1:
                self.widths = _learned(grams, self._targets, spreads)
            parts = {name: self.widths[name] ** 2 * gram for name, gram in grams.items()}
            self._unexplained = parts["remainder"] + parts["noise"] + np.diag(spreads**2)
            self._factor = cho_factor(sum(parts.values(), np.diag(spreads**2)), lower=True)
            self._weights = cho_solve(self._factor, self._targets)
            self._multipliers = self._back(self._weights)

    @cached_property
    def _kinds(self) -> list[tuple[str, str, int]]:
        """Names of widths, the groups that they are of, and 1 where it is a level's."""
        plain = [(name, name, 0) for name in self.basis.groups]
        return plain + [(name, name.removesuffix(BY_LEVEL), 1) for name in WIDTHS if name.endswith(BY_LEVEL)]

    def _summed(self, shares: Floats, levels: Floats) -> dict[str, Floats]:
        """What the log multipliers of each kind add to plans' log losses, to first order: ``(n, groups)`` each."""
        summed = self.basis.summed(shares)
        return {
            name: summed[group] * levels[:, None] if by_level else summed[group]
            for name, group, by_level in self._kinds
        }

    def _explained(self, multipliers: Floats) -> Floats:
        """What log multipliers add to the measured plans' log losses, to first order."""
        explained: Floats = self._shares @ multipliers[0] + self._levels * (self._shares @ multipliers[1])
        return explained

    def _alike(self, rows: Sequence[Row], others: Sequence[Row]) -> Floats:
        """``exp(-d)``, with d the weight of the leaves where two plans differ, over the reach; ``(n, m)``."""
        alike: Floats = np.exp((self.basis.alike(rows, others, self._first_shares) - 1) / REACH)
        return alike

    def _back(self, weights: Floats) -> Floats:
        """Log multipliers that weights of the measured plans make."""
        pulled = [weights @ self._shares, (weights * self._levels) @ self._shares]
        total = np.zeros_like(self._multipliers)
        for name, group, by_level in self._kinds:
            members = self.basis.groups[group]
            total[by_level] += (
                self.widths[name] ** 2 * np.bincount(members, pulled[by_level], minlength=len(members))[members]
            )
        return total

    def _scaled(self, multipliers: Floats, size_bytes: int) -> dict[tuple[str, Choice], float]:
        level = np.interp(size_bytes, *self._front.T)
        values = np.exp(self.basis.logs + multipliers[0] + level * multipliers[1])
        return {**self.basis.losses, **dict(zip(self.basis.pairs, values.tolist(), strict=True))}


def latest(records: Sequence[Record], most: int) -> list[Record]:
    """Those on the front of size and loss, half of all at most, and the newest, in the order of their numbers."""
    if len(records) <= most:
        return list(records)
    whole = [record for record in records if record.whole]
    front = [whole[i] for i in lower_left([(record.size_bytes, record.loss) for record in whole])]
    chosen = {record.number: record for record in front[:: -(-len(front) // (most // 2))]}
    for record in reversed(records):
        if len(chosen) >= most:
            break
        chosen.setdefault(record.number, record)
    return [record for _, record in sorted(chosen.items())]


def _learned(grams: dict[str, Floats], targets: Floats, spreads: Floats) -> dict[str, float]:
    """Widths of great posterior probability, one changed after the other; each is expected to be right within a factor of three."""
    part = slice(-MOST_FOR_WIDTHS, None)
    grams = {name: gram[part, part] for name, gram in grams.items()}
    targets, noise = targets[part], np.diag(spreads[part] ** 2)
    widths = dict(WIDTHS)

    def score(widths: dict[str, float]) -> float:
        covariance = sum((widths[name] ** 2 * gram for name, gram in grams.items()), noise)
        factor = np.linalg.cholesky(covariance)
        white = np.linalg.solve(factor, targets)
        prior = sum((np.log(widths[name] / WIDTHS[name]) / np.log(3)) ** 2 for name in widths)
        return float(-0.5 * white @ white - np.log(factor.diagonal()).sum() - 0.5 * prior)

    best = score(widths)
    for _ in range(PASSES):
        for name in widths:
            for factor in FACTORS:
                tried = {**widths, name: WIDTHS[name] * factor}
                if tried != widths and (found := score(tried)) > best:
                    best, widths = found, tried
    return widths
