"""Acquisition functions: the predicted value of measuring a plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from paredown.search.pareto import improvements
from paredown.search.surrogate.gaussian_process import Prediction

Floats = NDArray[np.float64]

QUANTILES = norm.ppf((np.arange(8) + 0.5) / 8)
"""Standard normal quantiles over which the hypervolume gain of a predicted loss is averaged."""


def expected_improvement(prediction: Prediction, best: float) -> Floats:
    """Expected improvement of the log loss over the best so far, ``(n,)``.

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
    """Expected hypervolume gain of size and log loss for each plan, ``(n,)``, if that plan alone joined the front.

    Args:
        sizes: Bytes of each plan, ``(n,)``.
        prediction: Predicted log losses of the plans.
        front: Sizes and log losses of the current front.
        reference_point: Largest size and log loss that count towards the hypervolume.

    Source:
        Emmerich, Giannakoglou & Naujoks, 2006, "Single- and multiobjective evolutionary optimization assisted by
        Gaussian random field metamodels": expected hypervolume improvement; the expectation over the loss is taken at
        a few quantiles.
    """
    total = np.zeros(len(sizes))
    for quantile in QUANTILES:
        total += improvements(
            np.column_stack([sizes, prediction.mean + quantile * prediction.spread]), front, reference_point
        )
    return total / len(QUANTILES)
