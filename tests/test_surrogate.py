"""What measured plans teach."""

from __future__ import annotations

import numpy as np
import pytest
import toys

from paredown.search.record import Record
from paredown.search.surrogate import NOISE, Surrogate

SPACE = toys.toy_space()
LOSSES = toys.losses_of(SPACE)
PLANS = toys.all_plans(SPACE)
TRUE = {pair: loss * (1.6 if "layers.0" in pair[0] else 0.7) for pair, loss in LOSSES.items()}


def measured(count: int, seed: int = 0) -> list[Record]:
    """Trials of random plans in a world where block 0 matters 1.6 times what was predicted, all else 0.7 times."""
    chosen = np.random.default_rng(seed).choice(len(PLANS), count, replace=False)
    return [toys.record_of(SPACE, PLANS[i], toys.sum_of(SPACE, PLANS[i], TRUE), number) for number, i in enumerate(chosen)]


def test_nothing_measured_changes_nothing() -> None:
    surrogate = Surrogate(SPACE.inventory, LOSSES, [])
    assert surrogate.expected() == LOSSES
    assert surrogate.draw(np.random.default_rng(0)) == LOSSES


def test_known_multipliers_are_recovered() -> None:
    """Of every pair that weighs enough in a plan to be seen above the noise."""
    expected = Surrogate(SPACE.inventory, LOSSES, measured(300)).expected()
    seen = [pair for pair, loss in TRUE.items() if loss > 5 * NOISE * float(np.median([r.loss for r in measured(300)]))]
    assert len(seen) > 5
    for pair in seen:
        assert expected[pair] == pytest.approx(TRUE[pair], rel=0.1), pair


def test_fresh_plans_are_predicted_better_than_by_the_sensitivities() -> None:
    surrogate, fresh = Surrogate(SPACE.inventory, LOSSES, measured(40)), measured(100, seed=1)
    expected = surrogate.expected()

    def error(losses: toys.Losses) -> float:
        return float(np.mean([abs((surrogate.predict(r.plan, losses) or 0.0) - r.loss) / r.loss for r in fresh if r.loss > 0]))

    assert error(expected) < 0.05 < 5 * error(expected) < error(LOSSES)


def test_draws_are_reproducible_and_scatter_around_the_mean() -> None:
    surrogate = Surrogate(SPACE.inventory, LOSSES, measured(10))
    one, same, other = (surrogate.draw(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one == same != other
    draws = [surrogate.draw(generator) for generator in [np.random.default_rng(0)] for _ in range(300)]
    for pair, loss in surrogate.expected().items():
        assert np.mean([draw[pair] for draw in draws]) == pytest.approx(loss, rel=0.15)


def test_what_was_measured_is_less_uncertain() -> None:
    before, after = (Surrogate(SPACE.inventory, LOSSES, measured(count)) for count in (3, 60))
    common = [pair for pair in before.pairs if pair in after.pairs]
    variances = [[float(s.covariance[s.pairs.index(pair), s.pairs.index(pair)]) for pair in common] for s in (before, after)]
    assert sum(variances[1]) < 0.5 * sum(variances[0])
    assert all(new > 0 for new in variances[1])


def test_losses_never_turn_negative() -> None:
    """A plan far better than predicted makes its choices cheap, not profitable."""
    plan = max(PLANS, key=lambda plan: toys.sum_of(SPACE, plan, LOSSES))
    record = toys.record_of(SPACE, plan, toys.sum_of(SPACE, plan, LOSSES) * 1e-6)
    surrogate = Surrogate(SPACE.inventory, LOSSES, [record])
    generator = np.random.default_rng(0)
    for losses in (surrogate.expected(), *(surrogate.draw(generator) for _ in range(20))):
        assert all(loss >= 0 for loss in losses.values())
