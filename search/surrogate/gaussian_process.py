"""Surrogate of the loss: a Gaussian process that corrects the sensitivities by the measured trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from paredown.search.pareto import lower_left
from paredown.search.surrogate.features import Basis, Row
from paredown.search.surrogate.rung_correction import on_whole_set
from paredown.search.trial import Record
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
"""Prior standard deviations of log multipliers and residuals.

- ``all``, ``block``, ``role``, ``site``, ``choice``, ``pair``: error shared by all sensitivities, by a block, by a role
  within blocks, by a site, by one choice at all sites, or by a single pair.
- ``... by level``: change of the first four per unit of the plan's level, its predicted log loss.
- ``remainder``: what no pair explains, correlated between similar plans.
- ``noise``: independent residual.

Each width is then fitted to the measured plans.
"""

BY_LEVEL = " by level"

FACTORS = (1 / 3, 1.0, 3.0)
"""Factors on a prior width that are tried."""

PASSES = 2
"""Coordinate-wise passes over the widths."""

STEPS = 3
"""Gauss-Newton steps to the most probable multipliers."""

FEWEST, MOST = 128, 512
SHARES = 460_000
"""Least and most trials that are fitted, and within these the most entries of their matrix: trials times (site, choice)
pairs. The trials on the front and the latest ones are used."""

MOST_FOR_WIDTHS = 96
"""Most trials, the latest, that the widths are learned from."""

REACH = 0.3
"""Length scale of the remainder: its correlation falls by a factor e per this share of the loss on differing leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predicted log losses of plans: mean and standard deviation, shape ``(n,)`` each."""

    mean: Floats
    spread: Floats


class Surrogate:
    """Gaussian process of a plan's log loss.

    The loss is the sum of the plan's sensitivities, each times a multiplier around one; a remainder is added to its
    logarithm. The log multipliers are jointly normal: those of pairs that share a block, a role, a site or a choice are
    correlated. They are linear in the plan's level, the log of the sum of its sensitivities: the cost of an error in an
    early block depends on how much the later blocks lose. The remainder is correlated between similar plans. The widths
    maximise the posterior probability on a coarse grid.

    Args:
        basis: Sensitivities.
        records: Measured trials; those on lower rungs carry the extra uncertainty of their rung.

    Source:
        Rasmussen & Williams, 2006, "Gaussian Processes for Machine Learning", sections 2.2, 2.7 and 5.4; the sum in the
        logarithm is linearised at the most probable multipliers (Laplace's approximation).
    """

    def __init__(self, basis: Basis, records: Sequence[Record]) -> None:
        self.basis = basis
        self.widths = dict(WIDTHS)
        # log multipliers at the middle level, and their change per level
        self._multipliers: Floats = np.zeros((2, len(basis.pairs)))
        self._middle = 0.0
        self._front = np.zeros((1, 2))
        most = min(max(SHARES // max(len(basis.pairs), 1), FEWEST), MOST)
        chosen = latest([record for record in records if record.loss > 0], most)
        known = [(record, row) for record in chosen if (row := basis.row_of(record)) is not None and len(row.columns)]
        self._rows = [row for _, row in known] if any(record.whole for record, _ in known) else []
        if self._rows:
            self._fit([record for record, _ in known])

    def expected(self, size_bytes: int) -> dict[tuple[str, Choice], float]:
        """Losses in plans of about this size, under the most probable multipliers."""
        return self._scaled(self._multipliers, size_bytes)

    def draw(self, generator: np.random.Generator, size_bytes: int) -> dict[tuple[str, Choice], float]:
        """Losses in plans of about this size, under one posterior sample.

        Source:
            Wilson et al., 2020, "Efficiently Sampling Functions from Gaussian Process Posteriors", arXiv 2002.09309,
            section 3.1: a prior sample, corrected by the measurements (Matheron's rule).
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
        """Posterior mean and standard deviation of plans whose choices all have a sensitivity."""
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
        """Predicted loss of one plan, from its posterior mean log loss; None if a choice has no sensitivity."""
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
        """Names of the widths, the basis group of each, and 1 for a width by level, else 0."""
        plain = [(name, name, 0) for name in self.basis.groups]
        return plain + [(name, name.removesuffix(BY_LEVEL), 1) for name in WIDTHS if name.endswith(BY_LEVEL)]

    def _summed(self, shares: Floats, levels: Floats) -> dict[str, Floats]:
        """Design matrices: first-order effect of each kind of log multiplier on log losses, ``(n, groups)`` each."""
        summed = self.basis.summed(shares)
        return {
            name: summed[group] * levels[:, None] if by_level else summed[group]
            for name, group, by_level in self._kinds
        }

    def _explained(self, multipliers: Floats) -> Floats:
        """Change of the measured plans' log losses by log multipliers, to first order."""
        explained: Floats = self._shares @ multipliers[0] + self._levels * (self._shares @ multipliers[1])
        return explained

    def _alike(self, rows: Sequence[Row], others: Sequence[Row]) -> Floats:
        """Kernel ``exp(-d / REACH)``, with d the loss share of the leaves where two plans differ; ``(n, m)``."""
        alike: Floats = np.exp((self.basis.alike(rows, others, self._first_shares) - 1) / REACH)
        return alike

    def _back(self, weights: Floats) -> Floats:
        """Log multipliers from weights of the measured plans: prior covariance times transposed design matrix."""
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
    """At most ``most`` trials: those on the front of size and loss (up to half), then the newest; by number."""
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
    """Widths by coordinate search for the maximum posterior; the prior trusts each within a factor of three."""
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
