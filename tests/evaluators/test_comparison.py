"""Two plans on the same documents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from paredown.evaluators.comparison import interval, ratio, resampling_weights
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
    """The variance over resamples is a mean of three's; the plain bootstrap's is a third too small."""
    _, draws = resampling_weights(5, 3, seed=0)
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
