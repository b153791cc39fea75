"""Two plans on the same documents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from paredown.evaluators.comparison import _weights, interval, ratio, saving
from paredown.evaluators.quality import Quality


def quality(totals: np.ndarray, tokens: np.ndarray) -> Quality:
    return Quality(metric="kl", totals=totals, tokens=tokens, perplexity=None)


def documents(generator: np.random.Generator, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Losses that differ much between documents, and lengths."""
    tokens = generator.integers(50, 200, count).astype(float)
    return tokens * generator.gamma(2, 0.5, count), tokens


def test_a_plan_is_as_good_as_itself() -> None:
    """With no doubt: the pairing takes all that documents differ by."""
    totals, tokens = documents(np.random.default_rng(0))
    found = ratio(quality(totals, tokens), quality(totals, tokens))
    assert (found.mean, found.low, found.high, found.documents) == (1.0, 1.0, 1.0, 40)
    half = ratio(quality(totals / 2, tokens), quality(totals, tokens))
    assert (half.mean, half.low, half.high) == pytest.approx((0.5, 0.5, 0.5))


def test_what_loses_nothing_is_as_good_as_what_loses_nothing() -> None:
    """Neither wins; and no ratio is larger than can be read."""
    totals, tokens = documents(np.random.default_rng(0))
    something, nothing = quality(totals, tokens), quality(0 * totals, tokens)
    both, worse, better = ratio(nothing, nothing), ratio(something, nothing), ratio(nothing, something)
    assert (both.mean, both.low, both.high) == (1.0, 1.0, 1.0)
    assert (worse.mean, worse.low, worse.high) == (1e6, 1e6, 1e6)
    assert (better.mean, better.low, better.high) == (0.0, 0.0, 0.0)


def test_draws_widen_the_interval() -> None:
    """Draws that differ say that the compressed plan hangs on its calibration texts; equal ones say nothing new."""
    totals, tokens = documents(np.random.default_rng(0))
    ours, theirs = quality(totals / 2, tokens), quality(totals, tokens)
    assert ratio([ours] * 3, [theirs] * 3) == replace(ratio(ours, theirs), draws=3)
    noisy = ratio([quality(totals * factor, tokens) for factor in (0.4, 0.5, 0.6)], [theirs] * 3)
    assert noisy.mean == pytest.approx(0.5)
    assert (noisy.low, noisy.high) == pytest.approx((0.4, 0.6))
    low, high = interval([quality(totals * factor, tokens) for factor in (0.4, 0.5, 0.6)])
    assert low < interval(ours)[0] < interval(ours)[1] < high
    with pytest.raises(
        ValueError, match="expected equally many draws of both plans, got 2 and 3; measure the same draws"
    ):
        ratio([ours] * 2, [theirs] * 3)


def test_calibration_draws_are_paired() -> None:
    """A draw that is bad for both plans alike leaves no doubt about their ratio."""
    totals, tokens = documents(np.random.default_rng(0))
    draws = (0.5, 1.0, 2.0)
    found = ratio(
        [quality(totals * draw / 2, tokens) for draw in draws], [quality(totals * draw, tokens) for draw in draws]
    )
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_three_draws_tell_the_spread_of_their_mean() -> None:
    """The variance over resamples is that of a mean of three; the plain bootstrap would be a third too small."""
    _, draws = _weights(5, 3, seed=0)
    values = np.array([1.0, 2.0, 6.0])
    assert (draws @ values).var() == pytest.approx(values.var(ddof=1) / 3, rel=0.05)


def test_the_interval_of_a_ratio_covers_the_truth() -> None:
    """The interval covers the truth in about 95 of 100 worlds, of which forty are tried.

    Pairing keeps it far narrower than the spread of the documents.
    """
    covered, widths = 0, []
    for world in range(40):
        generator = np.random.default_rng(world)
        totals, tokens = documents(generator)
        found = ratio(quality(totals * generator.normal(0.8, 0.1, len(totals)), tokens), quality(totals, tokens))
        covered += found.low <= 0.8 <= found.high
        widths.append(found.high - found.low)
    assert covered >= 34
    assert np.mean(widths) < 0.12


def test_the_interval_of_a_mean_covers_the_truth() -> None:
    covered = 0
    for world in range(40):
        low, high = interval(quality(*documents(np.random.default_rng(world))))
        covered += low <= 1.0 <= high
    assert covered >= 34


def test_intervals_are_reproducible() -> None:
    generator = np.random.default_rng(0)
    (totals, tokens), (others, _) = documents(generator), documents(generator)
    one, other = quality(totals, tokens), quality(others, tokens)
    assert ratio(one, other, seed=1) == ratio(one, other, seed=1) != ratio(one, other, seed=2)
    assert interval(one, seed=1) == interval(one, seed=1)


def test_the_standard_error_is_the_spread_of_the_mean_over_worlds() -> None:
    means, errors = [], []
    for world in range(400):
        found = quality(*documents(np.random.default_rng(world)))
        means.append(found.mean)
        errors.append(found.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)
    assert np.isnan(quality(np.ones(1), np.ones(1)).standard_error)


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
