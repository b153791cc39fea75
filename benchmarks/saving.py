"""The bytes that a front saves at the loss of another plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paredown.evaluators.comparison import resampling_weights
from paredown.evaluators.quality import Quality

RESAMPLES = 2_000
"""Bootstrap resamples of a `Saving`."""


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
    documents, _ = resampling_weights(totals.shape[1], 1, seed)
    drawn = [
        _size_at(sizes, w @ totals.T, float(w @ theirs.totals))
        for w in (np.ones(totals.shape[1]), *documents[:RESAMPLES])
    ]
    saved = 1 - np.array(drawn) / size_bytes
    low, high = np.quantile(saved[1:], [0.025, 0.975])
    return Saving(mean=float(saved[0]), low=float(low), high=float(high))


def _size_at(sizes: NDArray[np.float64], losses: NDArray[np.float64], loss: float) -> float:
    """Interpolated bytes at which the front reaches a loss; each plan counts as no worse than any smaller one."""
    logs = np.log(np.maximum(np.minimum.accumulate(losses), 1e-300))
    return float(np.interp(-np.log(max(loss, 1e-300)), -logs, sizes))
