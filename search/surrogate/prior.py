"""Prior of the surrogate: how far the sensitivities may be off, and which of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paredown.search.surrogate.features import Basis

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

MOST_FOR_WIDTHS = 96
"""Most trials, the latest, that the widths are learned from."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prior:
    """Joint normal distribution of the log multipliers, ``(2, p)``: at the middle level, and their change per level.

    Attributes:
        basis: Sensitivities.
        widths: Standard deviations, named as in `WIDTHS`.
    """

    basis: Basis
    widths: Mapping[str, float]

    @property
    def kinds(self) -> list[tuple[str, str, int]]:
        """Names of the widths, the basis group of each, and 1 for a width by level, else 0."""
        plain = [(name, name, 0) for name in self.basis.groups]
        return plain + [(name, name.removesuffix(BY_LEVEL), 1) for name in WIDTHS if name.endswith(BY_LEVEL)]

    def effects(self, shares: Floats, levels: Floats) -> dict[str, Floats]:
        """First-order effect of each kind of log multiplier on log losses, ``(n, groups)`` each.

        Args:
            shares: Each pair's share of the plans' sums, ``(n, p)``.
            levels: Levels of the plans, ``(n,)``.
        """
        summed = self.basis.summed(shares)
        return {
            name: summed[group] * levels[:, None] if by_level else summed[group] for name, group, by_level in self.kinds
        }

    def sample(self, generator: np.random.Generator) -> Floats:
        """Log multipliers drawn from the prior, ``(2, p)``."""
        drawn = np.zeros((2, len(self.basis.pairs)))
        for name, group, by_level in self.kinds:
            members = self.basis.groups[group]
            drawn[by_level] += self.widths[name] * generator.standard_normal(int(members.max(initial=-1)) + 1)[members]
        return drawn

    def multipliers(self, weights: Floats, shares: Floats, levels: Floats) -> Floats:
        """Log multipliers from weights of plans, ``(n,)``: prior covariance times transposed effects."""
        pulled = [weights @ shares, (weights * levels) @ shares]
        total = np.zeros((2, len(self.basis.pairs)))
        for name, group, by_level in self.kinds:
            members = self.basis.groups[group]
            total[by_level] += (
                self.widths[name] ** 2 * np.bincount(members, pulled[by_level], minlength=len(members))[members]
            )
        return total


def learned_widths(grams: Mapping[str, Floats], targets: Floats, spreads: Floats) -> dict[str, float]:
    """Widths by coordinate search for the maximum posterior; the prior trusts each within a factor of three.

    Args:
        grams: Covariance of the plans' log losses per unit of variance of each kind, ``(n, n)`` each.
        targets: Log losses that the multipliers and the residuals explain, ``(n,)``.
        spreads: Standard deviations of the measurements, ``(n,)``.
    """
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
