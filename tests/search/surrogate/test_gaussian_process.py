"""What measured plans teach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from paredown.search.pareto import lower_left
from paredown.search.surrogate.features import Basis
from paredown.search.surrogate.gaussian_process import Surrogate
from paredown.search.surrogate.prior import WIDTHS
from paredown.search.trial import Reading, Trial
from paredown.space.plan import Plan
from shared import toys

SPACE = toys.toy_space()
LOSSES = toys.losses_of(SPACE)
PLANS = toys.all_plans(SPACE)
MIDDLE = SPACE.inventory.original_bytes // 2
TRUE = {pair: loss * (1.6 if "layers.0" in pair[0] else 0.7) for pair, loss in LOSSES.items()}


def measured(count: int, seed: int = 0, power: float = 1.0) -> list[Trial]:
    """Trials of random plans in a world where block 0 matters 1.6 times what was predicted, all else 0.7 times."""
    chosen = np.random.default_rng(seed).choice(len(PLANS), count, replace=False)
    return [
        toys.trial_of(SPACE, PLANS[i], toys.sum_of(SPACE, PLANS[i], TRUE) ** power, number)
        for number, i in enumerate(chosen)
    ]


def errors(surrogate: Surrogate, fresh: list[Trial]) -> np.ndarray:
    """Errors of the predicted log losses."""
    known = [trial for trial in fresh if trial.loss > 0]
    return surrogate.predict([trial.plan for trial in known]).mean - np.log([trial.loss for trial in known])


def test_nothing_measured_changes_nothing() -> None:
    """But for draws, which scatter as widely as the prior."""
    surrogate = Surrogate(Basis(SPACE.inventory, LOSSES), [])
    assert surrogate.expected(MIDDLE) == pytest.approx(LOSSES)
    generator = np.random.default_rng(0)
    pair = max(LOSSES, key=lambda pair: LOSSES[pair])
    logs = [np.log(surrogate.draw(generator, MIDDLE)[pair] / LOSSES[pair]) for _ in range(2000)]
    groups = ("all", "block", "role", "site", "choice", "pair")
    assert np.std(logs) == pytest.approx(np.sqrt(sum(WIDTHS[name] ** 2 for name in groups)), rel=0.1)
    fresh = surrogate.predict([trial.plan for trial in measured(20)])
    assert (fresh.spread > WIDTHS["all"]).all()


def test_known_multipliers_are_recovered() -> None:
    """Multipliers of every pair with enough weight in a plan to be seen."""
    trials = measured(150)
    expected = Surrogate(Basis(SPACE.inventory, LOSSES), trials).expected(MIDDLE)
    seen = [pair for pair, loss in TRUE.items() if loss > 0.15 * float(np.median([trial.loss for trial in trials]))]
    assert len(seen) > 5
    for pair in seen:
        assert expected[pair] == pytest.approx(TRUE[pair], rel=0.1), pair


def test_fresh_plans_are_predicted_better_than_by_the_sensitivities() -> None:
    before, after = (
        Surrogate(Basis(SPACE.inventory, LOSSES), []),
        Surrogate(Basis(SPACE.inventory, LOSSES), measured(40)),
    )
    fresh = measured(100, seed=1)
    assert np.abs(errors(after, fresh)).mean() < 0.05
    assert 5 * np.abs(errors(after, fresh)).mean() < np.abs(errors(before, fresh)).mean()


def test_plans_are_as_far_off_as_the_spread_says() -> None:
    """In a world where every pair errs by itself, and every plan a little."""
    generator = np.random.default_rng(0)
    true = {pair: loss * generator.lognormal(0, 0.3) for pair, loss in LOSSES.items()}
    chosen = generator.choice(len(PLANS), 150, replace=False)
    known = [
        toys.trial_of(SPACE, PLANS[i], toys.sum_of(SPACE, PLANS[i], true) * generator.lognormal(0, 0.05))
        for i in chosen
    ]
    surrogate = Surrogate(Basis(SPACE.inventory, LOSSES), known[:30])
    spread = surrogate.predict([trial.plan for trial in known[30:] if trial.loss > 0]).spread
    ratio = np.sqrt(np.square(errors(surrogate, known[30:]) / np.hypot(spread, 0.05)).mean())
    assert 0.5 < ratio < 2


def test_a_loss_that_bends_away_from_the_sum_is_followed() -> None:
    """Additivity breaks where much is taken away: the loss grows as a power of the sum."""
    trials, fresh = measured(40, power=1.2), measured(100, seed=1, power=1.2)
    assert np.abs(errors(Surrogate(Basis(SPACE.inventory, LOSSES), trials), fresh)).mean() < 0.06


def test_what_matters_only_where_much_is_lost_is_known_there() -> None:
    """Choices of a block whose errors the other amplifies are dearer in small plans, in proportion."""
    base = np.median([toys.sum_of(SPACE, plan, LOSSES) for plan in PLANS])

    def true(plan: Plan) -> float:
        level = float(np.log(toys.sum_of(SPACE, plan, LOSSES) / base))
        return toys.sum_of(
            SPACE, plan, {p: x * np.exp((0.4 if "layers.0" in p[0] else -0.2) * level) for p, x in LOSSES.items()}
        )

    plans = [plan for plan in PLANS if toys.sum_of(SPACE, plan, LOSSES) > 0]
    chosen = np.random.default_rng(0).choice(len(plans), 120, replace=False)
    trials = [toys.trial_of(SPACE, plans[i], true(plans[i]), number) for number, i in enumerate(chosen)]
    surrogate = Surrogate(Basis(SPACE.inventory, LOSSES), trials[:60])
    assert np.abs(errors(surrogate, trials[60:])).mean() < 0.06
    sizes = sorted(trial.size_bytes for trial in trials)
    small, large = surrogate.expected(sizes[5]), surrogate.expected(sizes[-5])
    dearer = {pair: small[pair] / large[pair] for pair in LOSSES if LOSSES[pair] > 0}
    early = [ratio for pair, ratio in dearer.items() if "layers.0" in pair[0]]
    late = [ratio for pair, ratio in dearer.items() if "layers.1" in pair[0]]
    assert min(early) > 1.2 * max(late)


def test_draws_are_reproducible_and_scatter_around_the_mean() -> None:
    surrogate = Surrogate(Basis(SPACE.inventory, LOSSES), measured(10))
    one, same, other = (surrogate.draw(np.random.default_rng(seed), MIDDLE) for seed in (3, 3, 4))
    assert one == same != other
    generator = np.random.default_rng(0)
    draws = [surrogate.draw(generator, MIDDLE) for _ in range(300)]
    for pair, loss in surrogate.expected(MIDDLE).items():
        assert np.exp(np.mean([np.log(max(draw[pair], 1e-300)) for draw in draws])) == pytest.approx(loss, rel=0.15)


def test_draws_agree_with_the_predicted_spread() -> None:
    """Two ways to the same posterior: sums under draws, and the spread that is computed."""
    points = [(plan.size_bytes(SPACE.inventory), toys.sum_of(SPACE, plan, LOSSES)) for plan in PLANS]
    front = [(PLANS[i], points[i][0]) for i in lower_left(points) if points[i][1] > 0]
    trials = [
        toys.trial_of(SPACE, plan, toys.sum_of(SPACE, plan, TRUE), number)
        for number, (plan, _) in enumerate(front[::3])
    ]
    surrogate = Surrogate(Basis(SPACE.inventory, LOSSES), trials)
    others = [each for i, each in enumerate(front) if i % 3 and each[1] < trials[-1].size_bytes]
    logs = np.array(
        [
            [np.log(toys.sum_of(SPACE, plan, surrogate.draw(np.random.default_rng(seed), size))) for seed in range(800)]
            for plan, size in others
        ]
    )
    spread = surrogate.predict([plan for plan, _ in others]).spread
    assert len(others) > 6
    assert (logs.std(1) < 1.4 * spread).all()
    assert (logs.std(1) ** 2 > 0.5 * (spread**2 - surrogate.prior.widths["remainder"] ** 2)).all()


def test_what_was_measured_is_less_uncertain() -> None:
    plans = [trial.plan for trial in measured(30, seed=5) if trial.loss > 0]
    before, after = (
        Surrogate(Basis(SPACE.inventory, LOSSES), measured(count)).predict(plans).spread for count in (3, 60)
    )
    assert after.mean() < 0.5 * before.mean()
    assert (after > 0).all()


def test_few_plans_as_predicted_leave_others_in_doubt() -> None:
    """Two may be so by chance, and say little of plans unlike them; many say that the sensitivities are right."""
    plans = [plan for plan in PLANS if toys.sum_of(SPACE, plan, LOSSES) > 0]
    order = np.random.default_rng(0).permutation(len(plans))
    trials = [
        toys.trial_of(SPACE, plans[i], toys.sum_of(SPACE, plans[i], LOSSES), number)
        for number, i in enumerate(order[:20])
    ]
    fresh = [plans[i] for i in order[20:60]]
    before, few, many = (
        Surrogate(Basis(SPACE.inventory, LOSSES), trials[:count]).predict(fresh).spread.mean() for count in (0, 2, 20)
    )
    assert few > 0.45 * before
    assert many < 0.2 * before


def test_losses_never_turn_negative() -> None:
    """A plan far better than predicted makes its choices cheap, not profitable."""
    plan = max(PLANS, key=lambda plan: toys.sum_of(SPACE, plan, LOSSES))
    trial = toys.trial_of(SPACE, plan, toys.sum_of(SPACE, plan, LOSSES) * 1e-6)
    surrogate = Surrogate(Basis(SPACE.inventory, LOSSES), [trial])
    generator = np.random.default_rng(0)
    for losses in (surrogate.expected(MIDDLE), *(surrogate.draw(generator, MIDDLE) for _ in range(20))):
        assert all(loss >= 0 for loss in losses.values())


def test_lower_rungs_count_as_what_they_would_be_on_the_whole_set() -> None:
    """The first half of the sequences loses half as much as the rest, in every plan."""
    whole = [replace(trial, read=Reading(sequences=(trial.loss, 3 * trial.loss))) for trial in measured(30)]
    half = [
        replace(
            trial, loss=trial.loss / 2, read=Reading(sequences=(trial.loss,), whole=False), number=30 + trial.number
        )
        for trial in measured(20, seed=2)
    ]
    fresh = measured(60, seed=4)
    assert np.abs(errors(Surrogate(Basis(SPACE.inventory, LOSSES), [*whole, *half]), fresh)).mean() < 0.05
