"""Two plans measured on the same documents, each rebuilt from several draws of the calibration texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paredown.evaluators.quality import Quality

RESAMPLES = 10_000
SAVING_RESAMPLES = 2_000

MOST = 1e6
"""A ratio of losses beyond it, over a loss of nothing say, is told as this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One plan's loss over another's, with a 95 % interval over documents and draws."""

    mean: float
    low: float
    high: float
    documents: int
    draws: int


def ratio(ours: Quality | Sequence[Quality], theirs: Quality | Sequence[Quality], *, seed: int = 0) -> Ratio:
    """Paired bootstrap of the ratio of mean losses: documents are drawn again, and calibration draws where there are several.

    Args:
        ours: Of one plan on the same documents, for each calibration draw.
        theirs: Of another, for the same draws.
        seed: Of the bootstrap.

    Source:
        Efron & Tibshirani, 1993, "An Introduction to the Bootstrap", the percentile interval.
    """
    own, other = _totals(ours), _totals(theirs)
    if len(own) != len(other):
        raise ValueError(
            f"expected as many draws of both plans, got {len(own)} and {len(other)}; measure the same draws"
        )
    documents, draws = _weights(own.shape[1], len(own), seed)
    low, high = np.quantile(
        _ratios(_resampled(own, documents, draws), _resampled(other, documents, draws)), [0.025, 0.975]
    )
    mean = float(_ratios(own.sum(keepdims=True), other.sum(keepdims=True)).item())
    return Ratio(mean=mean, low=float(low), high=float(high), documents=own.shape[1], draws=len(own))


def _ratios(own: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """One loss over another; of two that are nothing 1, since neither is better, and of no pair more than `MOST`."""
    found = np.minimum(own, MOST * other) / np.where(other > 0, other, 1.0)
    ratios: NDArray[np.float64] = np.where(other > 0, found, np.where(own > 0, MOST, 1.0))
    return ratios


def interval(quality: Quality | Sequence[Quality], *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean loss over documents, and over calibration draws where there are several, by bootstrap."""
    totals = _totals(quality)
    tokens = (quality if isinstance(quality, Quality) else quality[0]).tokens
    documents, draws = _weights(totals.shape[1], len(totals), seed)
    low, high = np.quantile(_resampled(totals, documents, draws) / (documents @ tokens), [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Share of a plan's bytes that a front does without at the same loss, with a 95 % interval over documents."""

    mean: float
    low: float
    high: float


def saving(front: Sequence[tuple[int, Quality]], size_bytes: int, theirs: Quality, *, seed: int = 0) -> Saving:
    """What a front saves at the loss of a plan: between its plans the logarithm of the loss is taken to be linear in bytes.

    A front that is not as good at its largest, or better at its smallest, counts as that large or small: it claims no more than was
    measured.

    Args:
        front: Sizes and qualities of plans on the same documents.
        size_bytes: Of the plan that it is compared with.
        theirs: Its quality.
        seed: Of the bootstrap over documents.
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
    """Bytes at which the front, each plan no worse than a smaller one, comes to a loss."""
    logs = np.log(np.maximum(np.minimum.accumulate(losses), 1e-300))
    return float(np.interp(-np.log(max(loss, 1e-300)), -logs, sizes))


def _totals(qualities: Quality | Sequence[Quality]) -> NDArray[np.float64]:
    """Sums over tokens, shape ``(draws, documents)``."""
    return np.stack([quality.totals for quality in ([qualities] if isinstance(qualities, Quality) else qualities)])


def _weights(documents: int, draws: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How often each document is taken, and the weight of each draw, for every resample.

    Of n draws, n - 1 are taken: with so few, taking n would make the variance too small by (n - 1) / n.
    """
    generator = np.random.default_rng(seed)
    taken = generator.multinomial(documents, np.full(documents, 1 / documents), size=RESAMPLES)
    if draws == 1:
        return taken, np.ones((RESAMPLES, 1))
    return taken, generator.multinomial(draws - 1, np.full(draws, 1 / draws), size=RESAMPLES) / (draws - 1)


def _resampled(
    totals: NDArray[np.float64], documents: NDArray[np.int64], draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted sums, shape ``(resamples,)``."""
    sums: NDArray[np.float64] = ((documents @ totals.T) * draws).sum(1)
    return sums
