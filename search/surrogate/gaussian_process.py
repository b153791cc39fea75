"""Surrogate of the loss: a Gaussian process that corrects the sensitivities by the measured trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from paredown.search.surrogate.features import Basis, Row
from paredown.search.surrogate.measured_plans import MeasuredPlans
from paredown.search.surrogate.prior import WIDTHS, Prior, learned_widths
from paredown.search.trial import Trial
from paredown.space.choice import Choice
from paredown.space.plan import Plan

Floats = NDArray[np.float64]

STEPS = 3
"""Gauss-Newton steps to the most probable multipliers."""

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
        trials: Measured trials; those on lower rungs carry the extra uncertainty of their rung.

    Source:
        Rasmussen & Williams, 2006, "Gaussian Processes for Machine Learning", sections 2.2, 2.7 and 5.4; the sum in the
        logarithm is linearised at the most probable multipliers (Laplace's approximation).
    """

    def __init__(self, basis: Basis, trials: Sequence[Trial]) -> None:
        measured = MeasuredPlans.of(basis, trials)
        self._posterior = Posterior.given(basis, measured) if measured else None
        self.prior = self._posterior.prior if self._posterior else Prior(basis=basis, widths=WIDTHS)
        self._multipliers = self._posterior.multipliers if self._posterior else np.zeros((2, len(basis.pairs)))

    def expected(self, size_bytes: int) -> dict[tuple[str, Choice], float]:
        """Losses in plans of about this size, under the most probable multipliers."""
        return self._scaled(self._multipliers, size_bytes)

    def draw(self, generator: np.random.Generator, size_bytes: int) -> dict[tuple[str, Choice], float]:
        """Losses in plans of about this size, under one posterior sample."""
        drawn = self.prior.sample(generator)
        if self._posterior:
            drawn = self._posterior.corrected(drawn, generator)
        return self._scaled(drawn, size_bytes)

    def predict(self, plans: Sequence[Plan]) -> Prediction:
        """Posterior mean and standard deviation of plans whose choices all have a sensitivity."""
        basis, widths = self.prior.basis, self.prior.widths
        rows = [row for plan in plans if (row := basis.row(plan)) is not None]
        levels = basis.levels(rows) - self._posterior.measured.middle if self._posterior else np.zeros(len(rows))
        shares, sums = basis.shares(rows, self._multipliers, levels)
        effects = self.prior.effects(shares, levels)
        variance = widths["remainder"] ** 2 + sum(
            widths[name] ** 2 * np.square(each).sum(1) for name, each in effects.items()
        )
        if self._posterior is None:
            return Prediction(mean=sums, spread=np.sqrt(variance))
        shift, explained = self._posterior.conditioned(rows, effects)
        return Prediction(mean=sums + shift, spread=np.sqrt(np.maximum(variance - explained, 1e-8)))

    def predicted_loss(self, plan: Plan) -> float | None:
        """Predicted loss of one plan, from its posterior mean log loss; None if a choice has no sensitivity."""
        row = self.prior.basis.row(plan)
        if row is None:
            return None
        return float(np.exp(self.predict([plan]).mean[0])) if len(row.columns) else 0.0

    def _scaled(self, multipliers: Floats, size_bytes: int) -> dict[tuple[str, Choice], float]:
        basis, posterior = self.prior.basis, self._posterior
        level = np.interp(size_bytes, *posterior.measured.front.T) if posterior else 0.0
        values = np.exp(basis.logs + multipliers[0] + level * multipliers[1])
        return {**basis.losses, **dict(zip(basis.pairs, values.tolist(), strict=True))}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Posterior:
    """What the measured plans say of the multipliers, linearised at the most probable ones.

    Attributes:
        measured: The plans.
        prior: The prior, with the widths learned from them.
        multipliers: Most probable log multipliers, ``(2, p)``.
        shares: Each pair's share of the plans' sums, ``(n, p)``.
        first_shares: The same before any multiplier; they weight the leaves in the similarity of two plans.
        effects: The plans' effects, from `Prior.effects`.
        targets: Log losses that multipliers and residuals explain, ``(n,)``.
        residual: Covariance of what no multiplier explains, ``(n, n)``.
        factor: Cholesky factor of the covariance of the targets, from `cho_factor`.
        weights: The inverse of that covariance times the targets, ``(n,)``.
    """

    measured: MeasuredPlans
    prior: Prior
    multipliers: Floats
    shares: Floats
    first_shares: Floats
    effects: dict[str, Floats]
    targets: Floats
    residual: Floats
    factor: tuple[Floats, bool]
    weights: Floats

    @classmethod
    def given(cls, basis: Basis, measured: MeasuredPlans) -> Posterior:
        """The posterior given measured plans, by Gauss-Newton steps; the last one learns the widths."""
        prior, spreads = Prior(basis=basis, widths=WIDTHS), measured.spreads
        multipliers = np.zeros((2, len(basis.pairs)))
        first_shares, _ = basis.shares(measured.rows, multipliers, measured.levels)
        alike = similarity(basis, measured.rows, measured.rows, first_shares)
        for step in range(STEPS):
            shares, sums = basis.shares(measured.rows, multipliers, measured.levels)
            effects = prior.effects(shares, measured.levels)
            targets = measured.logs - sums + explained(multipliers, shares, measured.levels)
            grams = {name: each @ each.T for name, each in effects.items()}
            grams |= {"remainder": alike, "noise": np.eye(len(sums))}
            if step == STEPS - 1:
                prior = Prior(basis=basis, widths=learned_widths(grams, targets, spreads))
            parts = {name: prior.widths[name] ** 2 * gram for name, gram in grams.items()}
            factor = cho_factor(sum(parts.values(), np.diag(spreads**2)), lower=True)
            weights = cho_solve(factor, targets)
            multipliers = prior.multipliers(weights, shares, measured.levels)
        return cls(
            measured=measured,
            prior=prior,
            multipliers=multipliers,
            shares=shares,
            first_shares=first_shares,
            effects=effects,
            targets=targets,
            residual=parts["remainder"] + parts["noise"] + np.diag(spreads**2),
            factor=factor,
            weights=weights,
        )

    def corrected(self, drawn: Floats, generator: np.random.Generator) -> Floats:
        """A posterior sample of the log multipliers from a prior sample ``drawn``, ``(2, p)`` each.

        Source:
            Wilson et al., 2020, "Efficiently Sampling Functions from Gaussian Process Posteriors", arXiv 2002.09309,
            section 3.1: a prior sample, corrected by the measurements (Matheron's rule).
        """
        levels = self.measured.levels
        rest = np.linalg.cholesky(self.residual) @ generator.standard_normal(len(self.targets))
        missing = self.targets - explained(drawn, self.shares, levels) - rest
        return drawn + self.prior.multipliers(cho_solve(self.factor, missing), self.shares, levels)

    def conditioned(self, rows: Sequence[Row], effects: dict[str, Floats]) -> tuple[Floats, Floats]:
        """What the measured plans add to the mean log losses of others, and take from their variances, ``(n,)`` each.

        Args:
            rows: The other plans.
            effects: Their effects, from `Prior.effects` at the most probable multipliers.
        """
        widths = self.prior.widths
        alike = similarity(self.prior.basis, rows, self.measured.rows, self.first_shares)
        remainder = widths["remainder"] ** 2 * alike
        cross = remainder + sum(widths[name] ** 2 * each @ self.effects[name].T for name, each in effects.items())
        taken: Floats = (cross * cho_solve(self.factor, cross.T).T).sum(1)
        return remainder @ self.weights, taken


def similarity(basis: Basis, rows: Sequence[Row], others: Sequence[Row], shares: Floats) -> Floats:
    """Kernel ``exp(-d / REACH)``, with d the loss share of the leaves where two plans differ; ``(n, m)``."""
    alike: Floats = np.exp((basis.alike(rows, others, shares) - 1) / REACH)
    return alike


def explained(multipliers: Floats, shares: Floats, levels: Floats) -> Floats:
    """Change of plans' log losses by log multipliers, to first order, ``(n,)``."""
    changed: Floats = shares @ multipliers[0] + levels * (shares @ multipliers[1])
    return changed
