"""Which measured plans the surrogate learns from."""

from __future__ import annotations

from dataclasses import replace

from paredown.search.surrogate.features import Basis
from paredown.search.surrogate.measured_plans import MeasuredPlans, latest
from paredown.search.trial import Reading
from shared import toys

SPACE = toys.toy_space()
PLANS = toys.all_plans(SPACE)


def test_the_trials_that_it_learns_from_are_bounded() -> None:
    """The front stays, and the newest."""
    trials = [toys.trial_of(SPACE, PLANS[i % len(PLANS)], 1.0 + (i * 7919 % 1000) / 1000, i) for i in range(300)]
    kept = latest(trials, 100)
    assert len(kept) == 100
    least = min(trials, key=lambda trial: (trial.loss, trial.size_bytes))
    assert least in kept
    assert trials[-1] in kept
    assert [trial.number for trial in kept] == sorted(trial.number for trial in kept)


def test_nothing_is_learned_before_a_plan_was_measured_on_the_whole_set() -> None:
    """Rungs alone have nothing to be corrected by; a plan that loses nothing has no logarithm."""
    basis = Basis(SPACE.inventory, toys.losses_of(SPACE))
    plan = max(PLANS, key=lambda plan: toys.sum_of(SPACE, plan, basis.losses))
    trial = toys.trial_of(SPACE, plan, 1.0)
    assert MeasuredPlans.of(basis, [trial]) is not None
    assert MeasuredPlans.of(basis, [replace(trial, read=Reading(sequences=(1.0,), whole=False))]) is None
    assert MeasuredPlans.of(basis, [replace(trial, loss=0.0)]) is None
