"""The winner: chosen on fresh texts, guarded by the best uniform plan."""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from transformers import PreTrainedModel

from paredown.evaluators import timing
from paredown.evaluators.comparison import interval, ratio
from paredown.evaluators.quality import Quality
from paredown.search.finalists.finalists import SEARCHED, UNIFORM, Finalists, decide, distinct, time_deployed
from paredown.search.finalists.pace import Measurement
from paredown.search.finalists.rebuild import Version
from paredown.search.outcome.outcome import Outcome
from paredown.search.report.verdict import verdict
from paredown.search.trial import Record, best_within
from paredown.search.trials.clock import Clock
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan
from shared import pico as families
from shared import toys

SPACE = toys.toy_space()
PLANS = list(itertools.islice(toys.all_plans(SPACE), 24))
RATIOS = (0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0, 1.02, 1.1)
"""Of two plans' losses: from a clear gain over doubtful ones to a clear loss."""

SIZE = max(plan.size_bytes(SPACE.inventory) for plan in PLANS)


def trials(*origins: str) -> tuple[Record, ...]:
    """One trial of each origin, each of a plan of its own; every one loses more than the one before."""
    records = [toys.record_of(SPACE, PLANS[number], 1.0 + number, number) for number in range(len(origins))]
    return tuple(
        replace(record, origin=origin, size_bytes=SIZE) for record, origin in zip(records, origins, strict=True)
    )


def outcome_of(records: tuple[Record, ...], budget_bytes: int = SIZE) -> Outcome:
    return Outcome(
        state="finished",
        model="toy",
        architecture="Toy",
        target="paredown",
        metric="kl",
        original_bytes=SIZE,
        parameters=1,
        budget="1B",
        budget_bytes=budget_bytes,
        original_perplexity=None,
        records=records,
    )


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
        return next(record.number for record in outcome.records if record.plan == plan)

    def measure(plan: Plan, name: str, version: Version) -> Quality:
        number = number_of(plan)
        asked.append((name, number, version))
        loss = (fresh or {}).get(number, outcome[number].loss)
        return toys.quality_of(
            loss * (factors[number] if version.in_order else 1) * (1 + 0.1 * version.draw), plan=number
        )

    return decide(outcome, measure, lambda plan: number_of(plan) in factors, lambda name, done, of: None), asked


def test_a_few_of_each_origin_are_finalists() -> None:
    """The best of the search, the best uniform plans, and the solver's plan however it fared."""
    records = trials(*["frontier"] * 8, *["uniform"] * 4, "solver")
    chosen = Finalists.of(outcome_of(records))
    assert [record.number for record in chosen.searched] == list(range(SEARCHED))
    assert [record.number for record in chosen.uniform] == list(range(8, 8 + UNIFORM))
    assert {record.number for record in chosen.records} == {*range(SEARCHED), *range(8, 8 + UNIFORM), 12}


def test_fresh_texts_choose_among_the_finalists() -> None:
    """The search's best is that of the selection set, not of the search set."""
    outcome, asked = decided(outcome_of(trials("solver", "frontier", "uniform")), {1: 0.5})
    assert outcome.winner == outcome.searched == 1
    assert outcome.uniform == 2
    assert len(asked) == 6
    assert {(name, number) for name, number, _ in asked} == {
        (name, number) for name in ("selection", "held-out") for number in range(3)
    }
    assert {version for _, _, version in asked} == {Version()}
    assert set(outcome.comparisons) == {"uniform", "solver"}
    assert outcome.comparisons["solver"].mean == pytest.approx(0.5)


def test_what_the_trials_found_must_beat_the_solver() -> None:
    """A plan that is as good as the solver's own on the selection set is luck of the search set."""
    assert decided(outcome_of(trials("frontier", "solver")), {0: 1.0, 1: 1.0})[0].winner == 1
    assert decided(outcome_of(trials("frontier", "solver")), {0: 0.9, 1: 1.0})[0].winner == 0


def test_a_trial_replaces_the_solver_only_beyond_the_interval() -> None:
    """The selection set decides: where the interval of the two plans' ratio holds 1, the better mean may be luck."""
    doubtful = 0
    for loss in RATIOS:
        outcome, _ = decided(outcome_of(trials("frontier", "solver")), {0: loss, 1: 1.0})
        found = ratio(toys.quality_of(loss, plan=0), toys.quality_of(1.0, plan=1), seed=outcome.seed)
        assert outcome.searched == outcome.winner == (0 if found.high < 1 else 1), loss
        doubtful += found.mean < 1 <= found.high
    assert doubtful > 1


def test_what_gains_in_order_is_kept_so() -> None:
    """Each finalist in the version that is better on the selection set; the choice among them follows."""
    outcome, asked = decided(outcome_of(trials("solver", "frontier", "uniform")), {1: 1.2}, {0: 1.01, 1: 0.5, 2: 0.9})
    assert {number: refit.gains for number, refit in outcome.refits.items()} == {0: False, 1: True, 2: True}
    assert outcome.winner == 1
    assert [outcome.in_order(record) for record in outcome.records] == [False, True, True]
    versions = {(number, version.in_order) for name, number, version in asked if name == "held-out"}
    assert versions == {(0, False), (1, True), (2, True)}
    assert outcome.held_out[1].mean == pytest.approx(0.6)
    assert outcome.selection[1].mean == pytest.approx(0.6)


def test_calibrated_plans_are_rebuilt_from_several_draws() -> None:
    """The interval holds what hangs on the draw; a plan that no text decides on is the same for all."""
    outcome, asked = decided(outcome_of(trials("frontier", "uniform")), {0: 1.0, 1: 2.0}, {0: 1.5})
    draws = [(number, version.draw) for name, number, version in asked if name == "held-out"]
    assert sorted(draws) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 0), (1, 0)]
    assert outcome.comparisons["uniform"].mean == pytest.approx(1.1 / 2)
    assert outcome.comparisons["uniform"].low <= 1.0 / 2
    assert outcome.comparisons["uniform"].high >= 1.2 / 2
    assert (outcome.held_out[0].mean, outcome.held_out[0].draws) == (pytest.approx(1.0), 3)
    assert (outcome.held_out[1].low, outcome.held_out[1].high) == pytest.approx(interval(toys.quality_of(2.0, plan=1)))


@pytest.mark.parametrize(("uniform", "winner"), [(1.5, 0), (1.0, 1), (0.9, 1)])
def test_a_plan_no_better_than_the_uniform_one_does_not_win(uniform: float, winner: int) -> None:
    """A ratio whose interval reaches one is no gain."""
    outcome, _ = decided(outcome_of(trials("frontier", "uniform")), {0: 1.0, 1: uniform})
    assert (outcome.winner, outcome.searched, outcome.uniform) == (winner, 0, 1)
    assert outcome.gains == (winner == 0)


def test_the_guard_is_the_interval_over_documents() -> None:
    """If the interval of the held-out ratio contains 1, the uniform plan wins, even if its mean is higher.

    If it lies below 1, the search wins. The outcome and the verdict say the same.
    """
    doubtful = 0
    for loss in RATIOS:
        outcome, _ = decided(outcome_of(trials("solver", "uniform")), {0: loss, 1: 1.0})
        found = ratio(toys.quality_of(loss, plan=0), toys.quality_of(1.0, plan=1), seed=outcome.seed)
        against = outcome.comparisons["uniform"]
        assert (against.mean, against.low, against.high) == (found.mean, found.low, found.high)
        assert outcome.winner == (0 if found.high < 1 else 1), loss
        assert outcome.gains == (found.high < 1)
        assert ("No significant gain: the uniform plan wins" in verdict(outcome)) == (found.high >= 1)
        doubtful += found.mean < 1 <= found.high
    assert doubtful > 1


def test_the_verdict_claims_a_gain_over_the_solver_only_beyond_the_interval() -> None:
    """On the held-out set, whatever the selection set said."""
    doubtful = 0
    for mean in RATIOS:
        outcome, _ = decided(outcome_of(trials("frontier", "uniform", "solver")), {0: 0.5, 1: 1.0, 2: 1.0})
        against = replace(outcome.comparisons["solver"], mean=mean, low=mean - 0.05, high=mean + 0.05)
        words = verdict(replace(outcome, comparisons={**outcome.comparisons, "solver": against}))
        assert ("The trials improved on the solver's first plan" in words) == (against.high < 1)
        doubtful += mean < 1 <= against.high
    assert doubtful > 1


def test_of_equal_plans_the_smaller_wins() -> None:
    """The trials' numbers decide only between plans of one size."""
    first, second = trials("frontier", "frontier")
    smaller = replace(second, loss=first.loss, size_bytes=SIZE - 1)
    outcome = outcome_of((first, smaller))
    assert decide(outcome, lambda *_: toys.quality_of(1.0), lambda plan: False, lambda name, done, of: None).winner == 1
    assert [record.number for record in Finalists.of(outcome).searched] == [1, 0]
    assert outcome.best == best_within([first, smaller], SIZE) == smaller


def test_a_plan_that_a_draw_makes_infinite_is_out() -> None:
    """What cannot be compared on every draw is not compared at all."""
    outcome = outcome_of(trials("frontier", "uniform"))

    def measure(plan: Plan, name: str, version: Version) -> Quality:
        number = next(record.number for record in outcome.records if record.plan == plan)
        if (name, number, version.draw) == ("held-out", 0, 2):
            raise EvaluationError("kl is not finite")
        return toys.quality_of(1.0 + number, plan=number)

    after = decide(outcome, measure, lambda plan: True, lambda name, done, of: None)
    assert (after.winner, after.searched, set(after.held_out)) == (1, None, {1})


def test_what_gains_nothing_in_order_stays_as_the_trials_had_it() -> None:
    outcome, asked = decided(outcome_of(trials("solver", "uniform")), {0: 1.0, 1: 2.0}, {0: 1.0, 1: 1.5})
    assert not any(outcome.in_order(record) for record in outcome.records)
    assert {version.in_order for name, _, version in asked if name == "held-out"} == {False}
    assert [outcome.selection[number].mean for number in (0, 1)] == pytest.approx([1.0, 2.0])


def test_a_uniform_plan_within_the_budget_is_a_rival_though_larger() -> None:
    small, large = trials("frontier", "uniform")
    outcome, _ = decided(outcome_of((replace(small, size_bytes=SIZE - 1), large)), {1: 0.1})
    assert (outcome.winner, outcome.uniform) == (1, 1)
    assert outcome.gains is False


def test_uniform_plans_alone_have_a_winner() -> None:
    outcome, _ = decided(outcome_of(trials("uniform", "uniform")), {1: 0.5})
    assert (outcome.winner, outcome.searched) == (1, None)


def test_nothing_within_the_budget_measures_nothing() -> None:
    before = outcome_of(trials("frontier", "uniform"), budget_bytes=1)
    after, asked = decided(before)
    assert after == before
    assert not asked


class Timed:
    """Measurements that take a second on the selection set and three on the held-out set, until a limit.

    Args:
        outcome: Of a search.
        limit: Seconds.
        calibrated: Whether plans depend on calibration texts.
        overrun: How much longer each measurement takes than it is expected to.
    """

    def __init__(
        self,
        outcome: Outcome,
        limit: float,
        monkeypatch: pytest.MonkeyPatch,
        calibrated: bool = False,
        overrun: float = 0,
    ) -> None:
        self.now, self.overrun = 0.0, overrun
        self.ended: list[tuple[str, float]] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.losses = {record.plan: record.loss for record in outcome.records}
        clock = Clock(ends=limit)
        self.outcome = decide(
            outcome, self.measure, lambda plan: calibrated, lambda name, done, of: None, clock, self.seconds
        )

    def measure(self, plan: Plan, name: str, version: Version) -> Quality:
        self.now += self.seconds([(plan, name, version)]) + self.overrun
        self.ended.append((name, self.now))
        return toys.quality_of(self.losses[plan])

    @staticmethod
    def seconds(asked: Sequence[Measurement]) -> float:
        return float(sum(3 if name == "held-out" else 1 for _, name, _ in asked))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.ended]


@pytest.mark.parametrize("limit", range(0, 45, 2))
def test_no_measurement_ends_after_the_limit(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a winner all the same, and what is missing is said."""
    timed = Timed(outcome_of(trials("solver", "frontier", "frontier", "uniform")), limit, monkeypatch, calibrated=True)
    assert timed.now <= limit
    assert timed.outcome.winner == 0
    whole = 2 * 4 + 3 * 3 * 2
    assert bool(timed.outcome.unguarded) == (limit < 3 * 3 * 2)
    assert bool(timed.outcome.unselected) == (limit < whole)


def test_the_guard_comes_before_the_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time is enough for one of them, the held-out set is read, and the search set chooses."""
    records = trials("solver", "uniform", "uniform")
    timed = Timed(outcome_of(records), 6, monkeypatch)
    assert timed.names == ["held-out", "held-out"]
    assert timed.outcome.unselected
    assert not timed.outcome.unguarded
    assert timed.outcome.comparisons["uniform"].mean == pytest.approx(0.5)
    assert (timed.outcome.winner, timed.outcome.uniform) == (0, 1)


def test_the_draws_that_were_compared_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three is a comparison, and is no guard; a draw that only one plan was rebuilt from is none."""
    timed = Timed(outcome_of(trials("solver", "uniform")), 10, monkeypatch, calibrated=True)
    assert timed.names == ["held-out"] * 2
    assert timed.outcome.unguarded == "time allowed only 1 of the 3 calibration draws of the held-out comparison"
    assert timed.outcome.held_out[0].draws == 1
    assert timed.outcome.comparisons["uniform"].high < 1
    slow = Timed(outcome_of(trials("solver", "uniform")), 7, monkeypatch, calibrated=True, overrun=2)
    assert slow.names == ["held-out"]
    assert slow.outcome.unguarded == "no time was left for the held-out comparison with the best uniform plan"
    assert slow.outcome.comparisons == slow.outcome.held_out == {}


@pytest.mark.parametrize(("searched", "winner"), [(0.5, 0), (1.0, 1), (1.5, 1)])
def test_without_a_guard_the_uniform_plan_must_be_beaten_where_it_was_measured(
    searched: float, winner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the search set, beyond the interval: a plan that nothing else speaks for is not given to anyone."""
    best, uniform = trials("solver", "uniform")
    best, uniform = (
        replace(r, sequences=(0.9 * loss, 1.1 * loss), loss=loss) for r, loss in ((best, searched), (uniform, 1.0))
    )
    timed = Timed(outcome_of((best, uniform)), 0, monkeypatch)
    assert not timed.ended
    assert (timed.outcome.winner, timed.outcome.searched, timed.outcome.uniform) == (winner, 0, 1)


def test_the_first_of_each_plan_stays() -> None:
    one, other = trials("solver", "frontier")
    assert distinct([one, other, replace(one, number=7)]) in ([one, other], [other, one])


class Builder:
    """Builds a pico model for each plan, and counts how many are alive at once."""

    def __init__(self, fault: Callable[[int, int], Exception | None] = lambda turn, alive: None) -> None:
        self.fault, self.turns, self.most = fault, 0, 0
        self.models: weakref.WeakSet[PreTrainedModel] = weakref.WeakSet()

    def __call__(self, plan: Plan) -> PreTrainedModel:
        self.turns += 1
        if fault := self.fault(self.turns, len(self.models)):
            raise fault
        model = families.build("llama")
        self.models.add(model)
        self.most = max(self.most, len(self.models))
        return model


def timed(builder: Builder, at_once: int, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], list[str]]:
    """Whose times were found for trial 0, its rival 1 and the original, and what was said."""
    monkeypatch.setattr(timing, "REPEATS", 1)
    outcome = replace(outcome_of(trials("frontier", "uniform")), winner=0, uniform=1)
    said: list[str] = []
    found = time_deployed(outcome, builder, at_once, lambda name, done, of: None, said.append)
    assert all(times["decode_ms"] > 0 for times in found.values())
    return set(found), said


ALL = {"original", "0", "1"}


@pytest.mark.parametrize(("at_once", "most"), [(3, 3), (2, 1), (1, 1)])
def test_deployed_models_are_timed_together_where_memory_holds_them(
    at_once: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one after the other: never more of them are alive than fit."""
    builder = Builder()
    assert timed(builder, at_once, monkeypatch) == (ALL, [])
    assert builder.most == most


def test_memory_that_is_less_than_it_said_is_enough_for_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """In torch's words, too."""
    told = "DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes"
    for builder in (
        Builder(lambda turn, alive: MemoryError() if alive else None),
        Builder(lambda turn, alive: RuntimeError(told) if alive else None),
    ):
        assert timed(builder, 3, monkeypatch) == (ALL, [])
        assert builder.most == 1


def test_what_cannot_be_timed_leaves_the_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for one model, none in truth, or times that are no numbers: one line, and the times that were found."""
    assert timed(Builder(), 0, monkeypatch) == (
        set(),
        ["the deployed models were not all timed (the study's memory does not hold one of them); the winner stands"],
    )
    found, said = timed(Builder(lambda turn, alive: MemoryError() if turn > 1 else None), 3, monkeypatch)
    assert (found, len(said)) == (set(), 1)
    assert "(out of memory)" in said[0]
    found, said = timed(
        Builder(lambda turn, alive: EvaluationError("time is nan") if turn > 1 else None), 1, monkeypatch
    )
    assert (found, len(said)) == ({"original"}, 1)
    assert "(time is nan)" in said[0]
    with pytest.raises(RuntimeError, match="a bug"):
        timed(Builder(lambda turn, alive: RuntimeError("a bug")), 3, monkeypatch)
