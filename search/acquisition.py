"""Which of many plans is worth a measurement, by what is predicted of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from paredown.search.pareto import improvements
from paredown.search.surrogate import Prediction

Floats = NDArray[np.float64]

QUANTILES = norm.ppf((np.arange(8) + 0.5) / 8)
"""At which a predicted loss is tried when its gain of hypervolume is averaged."""


def expected_improvement(prediction: Prediction, best: float) -> Floats:
    """Expected fall of the log loss below the best one so far, ``(n,)``.

    Source:
        Jones, Schonlau & Welch, 1998, "Efficient Global Optimization of Expensive Black-Box Functions", equation (15).
    """
    gap = best - prediction.mean
    ratio = gap / prediction.spread
    expected: Floats = gap * norm.cdf(ratio) + prediction.spread * norm.pdf(ratio)
    return expected


def expected_gain(
    sizes: Floats, prediction: Prediction, front: Sequence[tuple[float, float]], reference_point: tuple[float, float]
) -> Floats:
    """Expected gain of hypervolume of size and log loss, ``(n,)``, if one of the plans joined the front.

    Args:
        sizes: Bytes of each, ``(n,)``.
        prediction: Of their log losses.
        front: Sizes and log losses so far.
        reference_point: The largest size and log loss that count.

    Source:
        Emmerich, Giannakoglou & Naujoks, 2006, "Single- and multiobjective evolutionary optimization assisted by Gaussian random
        field metamodels": expected hypervolume improvement; the expectation over the loss is taken at a few quantiles.
    """
    total = np.zeros(len(sizes))
    for quantile in QUANTILES:
        total += improvements(
            np.column_stack([sizes, prediction.mean + quantile * prediction.spread]), front, reference_point
        )
    return total / len(QUANTILES)
