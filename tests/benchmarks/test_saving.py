"""What a front saves."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.saving import saving
from tests.evaluators.test_comparison import documents, quality


def test_a_front_saves_the_bytes_at_which_its_loss_is_the_other_plans() -> None:
    """A loss that halves with each 100 bytes: a plan of 800 bytes with the loss of 600 gives up a quarter.

    The pairing leaves no doubt.
    """
    totals, tokens = documents(np.random.default_rng(0))
    front = [(size, quality(totals * 2.0 ** (-size / 100), tokens)) for size in (300, 500, 700, 900)]
    for size in (500, 600, 650):
        found = saving(front, 800, quality(totals * 2.0 ** (-size / 100), tokens))
        assert (found.mean, found.low, found.high) == pytest.approx((1 - size / 800,) * 3)
    assert saving(front, 800, quality(totals * 9, tokens)).mean == pytest.approx(
        1 - 300 / 800
    )  # not below what was measured
    assert saving(front, 800, quality(totals * 1e-9, tokens)).mean == pytest.approx(1 - 900 / 800)


def test_the_interval_of_a_saving_holds_what_documents_leave_open() -> None:
    """If the losses of two plans vary apart, the interval is as wide as the spread over samples of documents."""
    generator = np.random.default_rng(3)
    found, means = [], []
    for _ in range(60):
        totals, tokens = documents(generator, 30)
        front = [(size, quality(totals * 2.0 ** (-size / 100), tokens)) for size in (300, 500, 700, 900)]
        other = quality(totals * 2.0**-6 * generator.lognormal(0, 0.3, 30), tokens)
        found.append(saving(front, 800, other))
        means.append(found[-1].mean)
    truth = float(np.mean(means))
    assert sum(each.low <= truth <= each.high for each in found) >= 50
    assert np.mean([each.high - each.low for each in found]) == pytest.approx(4 * np.std(means), rel=0.4)
