"""The winner: chosen on fresh texts, guarded by the best uniform plan."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from paredown.evaluators.comparison import interval, ratio
from paredown.evaluators.quality import Quality
from paredown.search.finalists.decide import decide
from paredown.search.finalists.finalists import Finalists
from paredown.search.finalists.rebuild import Version
from paredown.search.outcome.outcome import Outcome
from paredown.search.report.verdict import verdict
from paredown.search.trial import Trial, best_within
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan
from shared import toys
from shared.made_study import changed, outcome_of

SPACE = toys.toy_space()
PLANS = list(itertools.islice(toys.all_plans(SPACE), 24))
RATIOS = (0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0, 1.02, 1.1)
"""Ratios of two plans' losses: a clear gain, doubtful ones, a clear loss."""

SIZE = max(plan.size_bytes(SPACE.inventory) for plan in PLANS)


def trials_of(*origins: str) -> tuple[Trial, ...]:
    """One trial of each origin, each of a plan of its own; every one loses more than the one before."""
    trials = [toys.trial_of(SPACE, PLANS[number], 1.0 + number, number) for number in range(len(origins))]
    return tuple(replace(trial, origin=origin, size_bytes=SIZE) for trial, origin in zip(trials, origins, strict=True))


def decided(
    outcome: Outcome, fresh: dict[int, float] | None = None, in_order: dict[int, float] | None = None
) -> tuple[Outcome, list[tuple[str, int, Version]]]:
    """The decision, and what was measured for it.

    Losses on fresh texts are as before unless given, and differ between documents.

    Args:
        outcome: Of the search.
        fresh: Losses by number.
        in_order: Factors by number of what compressing in order makes of them; plans without one are not calibrated.
    """
    asked: list[tuple[str, int, Version]] = []
    factors = in_order or {}

    def number_of(plan: Plan) -> int:
        return next(trial.number for trial in outcome.trials.measured if trial.plan == plan)

    def measure(plan: Plan, name: str, version: Version) -> Quality:
        number = number_of(plan)
        asked.append((name, number, version))
        loss = (fresh or {}).get(number, outcome.trials[number].loss)
        return toys.quality_of(
            loss * (factors[number] if version.in_order else 1) * (1 + 0.1 * version.draw), plan=number
        )

    decision = decide(outcome, measure, lambda plan: number_of(plan) in factors, lambda name, done, of: None)
    return replace(outcome, decision=decision), asked


def test_fresh_texts_choose_among_the_finalists() -> None:
    """The selection set chooses the search's best; the search set does not."""
    outcome, asked = decided(outcome_of(trials_of("solver", "frontier", "uniform")), {1: 0.5})
    assert outcome.decision.winner == outcome.decision.searched == 1
    assert outcome.decision.uniform == 2
    assert len(asked) == 6
    assert {(name, number) for name, number, _ in asked} == {
        (name, number) for name in ("selection", "held-out") for number in range(3)
    }
    assert {version for _, _, version in asked} == {Version()}
    assert set(outcome.decision.comparisons) == {"uniform", "solver"}
    assert outcome.decision.comparisons["solver"].mean == pytest.approx(0.5)


def test_what_the_trials_found_must_beat_the_solver() -> None:
    """A plan that is as good as the solver's own on the selection set is luck of the search set."""
    assert decided(outcome_of(trials_of("frontier", "solver")), {0: 1.0, 1: 1.0})[0].decision.winner == 1
    assert decided(outcome_of(trials_of("frontier", "solver")), {0: 0.9, 1: 1.0})[0].decision.winner == 0


def test_a_trial_replaces_the_solver_only_beyond_the_interval() -> None:
    """The selection set decides: where the interval of the two plans' ratio holds 1, the better mean may be luck."""
    doubtful = 0
    for loss in RATIOS:
        outcome, _ = decided(outcome_of(trials_of("frontier", "solver")), {0: loss, 1: 1.0})
        found = ratio(toys.quality_of(loss, plan=0), toys.quality_of(1.0, plan=1), seed=outcome.question.seed)
        assert outcome.decision.searched == outcome.decision.winner == (0 if found.high < 1 else 1), loss
        doubtful += found.mean < 1 <= found.high
    assert doubtful > 1


def test_what_gains_in_order_is_kept_so() -> None:
    """Each finalist in the version that is better on the selection set; the choice among them follows."""
    outcome, asked = decided(
        outcome_of(trials_of("solver", "frontier", "uniform")), {1: 1.2}, {0: 1.01, 1: 0.5, 2: 0.9}
    )
    assert {number: refit.gains for number, refit in outcome.decision.refits.items()} == {0: False, 1: True, 2: True}
    assert outcome.decision.winner == 1
    assert [outcome.decision.in_order(trial) for trial in outcome.trials.measured] == [False, True, True]
    versions = {(number, version.in_order) for name, number, version in asked if name == "held-out"}
    assert versions == {(0, False), (1, True), (2, True)}
    assert outcome.decision.held_out[1].mean == pytest.approx(0.6)
    assert outcome.decision.selection[1].mean == pytest.approx(0.6)


def test_calibrated_plans_are_rebuilt_from_several_draws() -> None:
    """The interval holds what hangs on the draw; a plan that no text decides on is the same for all."""
    outcome, asked = decided(outcome_of(trials_of("frontier", "uniform")), {0: 1.0, 1: 2.0}, {0: 1.5})
    draws = [(number, version.draw) for name, number, version in asked if name == "held-out"]
    assert sorted(draws) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 0), (1, 0)]
    assert outcome.decision.comparisons["uniform"].mean == pytest.approx(1.1 / 2)
    assert outcome.decision.comparisons["uniform"].low <= 1.0 / 2
    assert outcome.decision.comparisons["uniform"].high >= 1.2 / 2
    assert (outcome.decision.held_out[0].mean, outcome.decision.held_out[0].draws) == (pytest.approx(1.0), 3)
    assert (outcome.decision.held_out[1].low, outcome.decision.held_out[1].high) == pytest.approx(
        interval(toys.quality_of(2.0, plan=1))
    )


@pytest.mark.parametrize(("uniform", "winner"), [(1.5, 0), (1.0, 1), (0.9, 1)])
def test_a_plan_no_better_than_the_uniform_one_does_not_win(uniform: float, winner: int) -> None:
    """A ratio whose interval contains one does not count as a gain."""
    outcome, _ = decided(outcome_of(trials_of("frontier", "uniform")), {0: 1.0, 1: uniform})
    assert (outcome.decision.winner, outcome.decision.searched, outcome.decision.uniform) == (winner, 0, 1)
    assert outcome.decision.gains == (winner == 0)


def test_the_guard_is_the_interval_over_documents() -> None:
    """If the interval of the held-out ratio contains 1, the uniform plan wins, even if its mean is higher.

    If it lies below 1, the search wins. The outcome and the verdict say the same.
    """
    doubtful = 0
    for loss in RATIOS:
        outcome, _ = decided(outcome_of(trials_of("solver", "uniform")), {0: loss, 1: 1.0})
        found = ratio(toys.quality_of(loss, plan=0), toys.quality_of(1.0, plan=1), seed=outcome.question.seed)
        against = outcome.decision.comparisons["uniform"]
        assert (against.mean, against.low, against.high) == (found.mean, found.low, found.high)
        assert outcome.decision.winner == (0 if found.high < 1 else 1), loss
        assert outcome.decision.gains == (found.high < 1)
        assert ("No significant gain: the uniform plan wins" in verdict(outcome)) == (found.high >= 1)
        doubtful += found.mean < 1 <= found.high
    assert doubtful > 1


def test_the_verdict_claims_a_gain_over_the_solver_only_beyond_the_interval() -> None:
    """On the held-out set, whatever the selection set said."""
    doubtful = 0
    for mean in RATIOS:
        outcome, _ = decided(outcome_of(trials_of("frontier", "uniform", "solver")), {0: 0.5, 1: 1.0, 2: 1.0})
        against = replace(outcome.decision.comparisons["solver"], mean=mean, low=mean - 0.05, high=mean + 0.05)
        words = verdict(changed(outcome, comparisons={**outcome.decision.comparisons, "solver": against}))
        assert ("The trials improved on the solver's first plan" in words) == (against.high < 1)
        doubtful += mean < 1 <= against.high
    assert doubtful > 1


def test_of_equal_plans_the_smaller_wins() -> None:
    """The trials' numbers decide only between plans of one size."""
    first, second = trials_of("frontier", "frontier")
    smaller = replace(second, loss=first.loss, size_bytes=SIZE - 1)
    outcome = outcome_of((first, smaller))
    assert decide(outcome, lambda *_: toys.quality_of(1.0), lambda plan: False, lambda name, done, of: None).winner == 1
    assert [trial.number for trial in Finalists.of(outcome).searched] == [1, 0]
    assert outcome.best == best_within([first, smaller], SIZE) == smaller


def test_a_plan_that_a_draw_makes_infinite_is_out() -> None:
    """What cannot be compared on every draw is not compared at all."""
    outcome = outcome_of(trials_of("frontier", "uniform"))

    def measure(plan: Plan, name: str, version: Version) -> Quality:
        number = next(trial.number for trial in outcome.trials.measured if trial.plan == plan)
        if (name, number, version.draw) == ("held-out", 0, 2):
            raise EvaluationError("kl is not finite")
        return toys.quality_of(1.0 + number, plan=number)

    after = decide(outcome, measure, lambda plan: True, lambda name, done, of: None)
    assert (after.winner, after.searched, set(after.held_out)) == (1, None, {1})


def test_what_gains_nothing_in_order_stays_as_the_trials_had_it() -> None:
    outcome, asked = decided(outcome_of(trials_of("solver", "uniform")), {0: 1.0, 1: 2.0}, {0: 1.0, 1: 1.5})
    assert not any(outcome.decision.in_order(trial) for trial in outcome.trials.measured)
    assert {version.in_order for name, _, version in asked if name == "held-out"} == {False}
    assert [outcome.decision.selection[number].mean for number in (0, 1)] == pytest.approx([1.0, 2.0])


def test_a_uniform_plan_within_the_budget_is_a_rival_though_larger() -> None:
    small, large = trials_of("frontier", "uniform")
    outcome, _ = decided(outcome_of((replace(small, size_bytes=SIZE - 1), large)), {1: 0.1})
    assert (outcome.decision.winner, outcome.decision.uniform) == (1, 1)
    assert outcome.decision.gains is False


def test_uniform_plans_alone_have_a_winner() -> None:
    outcome, _ = decided(outcome_of(trials_of("uniform", "uniform")), {1: 0.5})
    assert (outcome.decision.winner, outcome.decision.searched) == (1, None)


def test_nothing_within_the_budget_measures_nothing() -> None:
    before = outcome_of(trials_of("frontier", "uniform"), budget_bytes=1)
    after, asked = decided(before)
    assert after == before
    assert not asked
