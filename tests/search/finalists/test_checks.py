"""Measurements under a time limit: none ends after it, and what is missing is said."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from paredown.evaluators.quality import Quality
from paredown.search.finalists.decide import decide
from paredown.search.finalists.pace import Measurement
from paredown.search.finalists.rebuild import Version
from paredown.search.outcome.outcome import Outcome
from paredown.search.trial import Reading
from paredown.search.trials.clock import Clock
from paredown.space.plan import Plan
from shared import toys
from shared.made_study import outcome_of
from tests.search.finalists.test_decide import trials_of


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
        self.losses = {trial.plan: trial.loss for trial in outcome.trials.measured}
        clock = Clock(ends=limit)
        self.decision = decide(
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
    timed = Timed(
        outcome_of(trials_of("solver", "frontier", "frontier", "uniform")), limit, monkeypatch, calibrated=True
    )
    assert timed.now <= limit
    assert timed.decision.winner == 0
    whole = 2 * 4 + 3 * 3 * 2
    assert bool(timed.decision.unguarded) == (limit < 3 * 3 * 2)
    assert bool(timed.decision.unselected) == (limit < whole)


def test_the_guard_comes_before_the_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time is enough for one of them, the held-out set is read, and the search set chooses."""
    trials = trials_of("solver", "uniform", "uniform")
    timed = Timed(outcome_of(trials), 6, monkeypatch)
    assert timed.names == ["held-out", "held-out"]
    assert timed.decision.unselected
    assert not timed.decision.unguarded
    assert timed.decision.comparisons["uniform"].mean == pytest.approx(0.5)
    assert (timed.decision.winner, timed.decision.uniform) == (0, 1)


def test_the_draws_that_were_compared_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw of three gives a comparison but no guard; a draw that only one plan was rebuilt from does not count."""
    timed = Timed(outcome_of(trials_of("solver", "uniform")), 10, monkeypatch, calibrated=True)
    assert timed.names == ["held-out"] * 2
    assert timed.decision.unguarded == "time allowed only 1 of the 3 calibration draws of the held-out comparison"
    assert timed.decision.held_out[0].draws == 1
    assert timed.decision.comparisons["uniform"].high < 1
    slow = Timed(outcome_of(trials_of("solver", "uniform")), 7, monkeypatch, calibrated=True, overrun=2)
    assert slow.names == ["held-out"]
    assert slow.decision.unguarded == "no time was left for the held-out comparison with the best uniform plan"
    assert slow.decision.comparisons == slow.decision.held_out == {}


@pytest.mark.parametrize(("searched", "winner"), [(0.5, 0), (1.0, 1), (1.5, 1)])
def test_without_a_guard_the_uniform_plan_must_be_beaten_where_it_was_measured(
    searched: float, winner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the search set, beyond the interval: a plan that nothing else speaks for is not given to anyone."""
    best, uniform = trials_of("solver", "uniform")
    best, uniform = (
        replace(r, read=Reading(sequences=(0.9 * loss, 1.1 * loss)), loss=loss)
        for r, loss in ((best, searched), (uniform, 1.0))
    )
    timed = Timed(outcome_of((best, uniform)), 0, monkeypatch)
    assert not timed.ended
    assert (timed.decision.winner, timed.decision.searched, timed.decision.uniform) == (winner, 0, 1)
