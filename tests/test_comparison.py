"""Two plans on the same documents."""

from __future__ import annotations

import numpy as np
import pytest

from paredown.evaluators.comparison import interval, ratio
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


def test_the_interval_of_a_ratio_covers_the_truth() -> None:
    """In about 95 of 100 worlds, of which forty are tried; pairing keeps it far narrower than the spread of the documents."""
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
