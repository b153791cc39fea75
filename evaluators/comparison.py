"""Paired comparison of plans on the same documents and, if given, several calibration draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paredown.evaluators.quality import Quality

RESAMPLES = 10_000
"""Bootstrap resamples of an interval."""

SAVING_RESAMPLES = 2_000
"""Bootstrap resamples of a `Saving`."""

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
    documents, draws = _weights(own.shape[1], len(own), seed)
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
    documents, draws = _weights(totals.shape[1], len(totals), seed)
    low, high = np.quantile(_resampled(totals, documents, draws) / (documents @ tokens), [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Share of a plan's bytes that a front saves at the same loss, with a 95 % interval over documents."""

    mean: float
    low: float
    high: float


def saving(front: Sequence[tuple[int, Quality]], size_bytes: int, theirs: Quality, *, seed: int = 0) -> Saving:
    """Share of a plan's bytes that a front saves at the same loss.

    Between two plans of the front the log loss is interpolated linearly in bytes. Beyond its ends the front is not
    extrapolated: a loss outside its range takes the size of its largest or smallest plan, so no more is claimed than
    was measured.

    Args:
        front: Sizes [bytes] and qualities of plans on the same documents.
        size_bytes: Size of the plan that the front is compared with.
        theirs: Quality of that plan.
        seed: Seed of the bootstrap over documents.
    """
    ordered = sorted(front, key=lambda point: point[0])
    sizes = np.array([size for size, _ in ordered], dtype=np.float64)
    totals = np.stack([quality.totals for _, quality in ordered])
    documents, _ = _weights(totals.shape[1], 1, seed)
    drawn = [
        _size_at(sizes, w @ totals.T, float(w @ theirs.totals))
        for w in (np.ones(totals.shape[1]), *documents[:SAVING_RESAMPLES])
    ]
    saved = 1 - np.array(drawn) / size_bytes
    low, high = np.quantile(saved[1:], [0.025, 0.975])
    return Saving(mean=float(saved[0]), low=float(low), high=float(high))


def _size_at(sizes: NDArray[np.float64], losses: NDArray[np.float64], loss: float) -> float:
    """Interpolated bytes at which the front reaches a loss; each plan counts as no worse than any smaller one."""
    logs = np.log(np.maximum(np.minimum.accumulate(losses), 1e-300))
    return float(np.interp(-np.log(max(loss, 1e-300)), -logs, sizes))


def _totals(qualities: Quality | Sequence[Quality]) -> NDArray[np.float64]:
    """Sums over tokens; shape ``(draws, documents)``."""
    return np.stack([quality.totals for quality in ([qualities] if isinstance(qualities, Quality) else qualities)])


def _weights(documents: int, draws: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
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
