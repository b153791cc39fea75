"""Paired comparison of plans on the same documents and, if given, several calibration draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paredown.evaluators.quality import Quality

RESAMPLES = 10_000
"""Bootstrap resamples of an interval."""

MOST = 1e6
"""Upper bound on a reported ratio of losses; reached if the other loss is zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Ratio of two plans' losses, with a 95 % interval over documents and calibration draws."""

    mean: float
    low: float
    high: float
    documents: int
    draws: int


def ratio(ours: Quality | Sequence[Quality], theirs: Quality | Sequence[Quality], *, seed: int = 0) -> Ratio:
    """Ratio of mean losses, with a paired bootstrap over documents and, if there are several, calibration draws.

    Args:
        ours: Quality of one plan, for each calibration draw.
        theirs: Quality of the other plan on the same documents, for the same draws.
        seed: Seed of the bootstrap.

    Source:
        Efron & Tibshirani, 1993, "An Introduction to the Bootstrap", the percentile interval.
    """
    own, other = _totals(ours), _totals(theirs)
    if len(own) != len(other):
        raise ValueError(
            f"expected equally many draws of both plans, got {len(own)} and {len(other)}; measure the same draws"
        )
    documents, draws = resampling_weights(own.shape[1], len(own), seed)
    low, high = np.quantile(
        _ratios(_resampled(own, documents, draws), _resampled(other, documents, draws)), [0.025, 0.975]
    )
    mean = float(_ratios(own.sum(keepdims=True), other.sum(keepdims=True)).item())
    return Ratio(mean=mean, low=float(low), high=float(high), documents=own.shape[1], draws=len(own))


def _ratios(own: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ratios of losses, at most `MOST`; 1 if both are zero, since neither plan is better."""
    found = np.minimum(own, MOST * other) / np.where(other > 0, other, 1.0)
    ratios: NDArray[np.float64] = np.where(other > 0, found, np.where(own > 0, MOST, 1.0))
    return ratios


def interval(quality: Quality | Sequence[Quality], *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean loss, over documents and, if there are several, calibration draws."""
    totals = _totals(quality)
    tokens = (quality if isinstance(quality, Quality) else quality[0]).tokens
    documents, draws = resampling_weights(totals.shape[1], len(totals), seed)
    low, high = np.quantile(_resampled(totals, documents, draws) / (documents @ tokens), [0.025, 0.975])
    return float(low), float(high)


def _totals(qualities: Quality | Sequence[Quality]) -> NDArray[np.float64]:
    """Sums over tokens; shape ``(draws, documents)``."""
    return np.stack([quality.totals for quality in ([qualities] if isinstance(qualities, Quality) else qualities)])


def resampling_weights(documents: int, draws: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Multiplicity of each document, and weight of each draw, in every resample.

    A resample takes n - 1 of n draws: taking n would make the variance too small by (n - 1) / n, which matters for few
    draws.
    """
    generator = np.random.default_rng(seed)
    taken = generator.multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
    if draws == 1:
        return taken, np.ones((RESAMPLES, 1))
    return taken, generator.multinomial(draws - 1, np.full(draws, 1 / draws), size=RESAMPLES) / (draws - 1)


def _resampled(
    totals: NDArray[np.float64], documents: NDArray[np.int64], draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Total loss of each resample; shape ``(resamples,)``."""
    sums: NDArray[np.float64] = ((documents @ totals.T) * draws).sum(1)
    return sums
