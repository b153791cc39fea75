"""Which plan is worth a measurement."""

from __future__ import annotations

import numpy as np
import pytest

from paredown.search.pareto import improvements
from paredown.search.surrogate.acquisition import expected_gain, expected_improvement
from paredown.search.surrogate.gaussian_process import Prediction

CLOUD = Prediction(mean=np.array([0.0, -1.0, 2.0]), spread=np.array([1.0, 0.1, 0.5]))
DRAWS = CLOUD.mean + CLOUD.spread * np.random.default_rng(0).standard_normal((200_000, 3))


def test_the_expected_improvement_is_the_mean_of_what_draws_gain() -> None:
    drawn = np.maximum(-0.5 - DRAWS, 0).mean(0)
    assert expected_improvement(CLOUD, -0.5) == pytest.approx(drawn, abs=3e-3)


def test_the_expected_gain_is_the_mean_of_what_draws_add() -> None:
    """To the hypervolume of the front; the quantiles stand for the draws."""
    front, corner, sizes = [(1.0, 1.5), (2.0, 0.0), (3.0, -2.0)], (4.0, 3.0), np.array([1.5, 2.5, 0.5])
    drawn = np.mean(
        [improvements(np.column_stack([sizes, losses]), front, corner) for losses in DRAWS[:20_000]], axis=0
    )
    assert expected_gain(sizes, CLOUD, front, corner) == pytest.approx(drawn, rel=0.05, abs=0.01)
