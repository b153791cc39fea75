"""Two plans measured on the same documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paredown.evaluators.quality import Quality

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One plan's loss over another's, with a 95 % interval over documents."""

    mean: float
    low: float
    high: float
    documents: int


def ratio(ours: Quality, theirs: Quality, *, seed: int = 0) -> Ratio:
    """Paired bootstrap over documents of the ratio of mean losses.

    Source:
        Efron & Tibshirani, 1993, "An Introduction to the Bootstrap", the percentile interval.
    """
    generator = np.random.default_rng(seed)
    count = len(ours.totals)
    weights = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    ratios = (weights @ ours.totals) / np.maximum(weights @ theirs.totals, 1e-300)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Ratio(mean=ours.mean / max(theirs.mean, 1e-300), low=float(low), high=float(high), documents=count)


def interval(quality: Quality, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean loss over documents, by bootstrap."""
    generator = np.random.default_rng(seed)
    count = len(quality.totals)
    weights = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    low, high = np.quantile((weights @ quality.totals) / (weights @ quality.tokens), [0.025, 0.975])
    return float(low), float(high)
