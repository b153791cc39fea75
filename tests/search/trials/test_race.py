"""Trials in a database: killed at any moment, they go on as if nothing had been."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from paredown.evaluators.quality import Quality
from paredown.search.samplers import Proposal
from paredown.search.trial import Trial
from paredown.search.trials.clock import Clock
from paredown.search.trials.race import MOST_FAILURES, Race
from paredown.search.trials.trial_log import TrialLog
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan
from shared import toys

SPACE = toys.toy_space()
PROBLEM = toys.problem_of(SPACE)
SEEDS = [
    ("uniform", Proposal(plan=Plan(), label="all kept")),
    ("solver", Proposal(plan=PROBLEM.solver.smallest(), label="smallest")),
]


class World:
    """Measures plans as the sum of the sensitivities, and remembers what it was asked."""

    def __init__(self, fault: Callable[[int], BaseException | None] = lambda turn: None) -> None:
        self.asked: list[Plan] = []
        self.fault = fault

    def __call__(self, plan: Plan, sequences: int | None) -> Quality:
        self.asked.append(plan)
        if fault := self.fault(len(self.asked) - 1):
            raise fault
        return toys.quality_of(1e-3 + toys.sum_of(SPACE, plan, PROBLEM.losses))


def run(
    path: Path,
    trials: int,
    world: World | None = None,
    *,
    sampler: str = "frontier",
    seeds: object = SEEDS,
    timed: bool = False,
) -> Race:
    """Trials in a database, as a process that was just started runs them."""
    log = TrialLog(path, with_latency=timed)
    pace = (2.0, 0.5) if timed else None
    race = Race(log, PROBLEM, sampler, list(seeds), world or World(), lambda plan: pace)  # type: ignore[call-overload]
    race.run(trials=trials, finished=lambda trial: None)
    return race


def content(race: Race) -> list[tuple[int, str, str, float, float | None]]:
    """All that must be equal between two runs; the clock is not."""
    trials = [trial for _, trial in sorted(race.history.items())]
    return [(r.number, r.origin, str(r.plan), r.loss, r.expected.loss) for r in trials]


def stop_at(turn: int) -> World:
    return World(lambda now: KeyboardInterrupt() if now == turn else None)


def test_a_trial_that_was_interrupted_is_measured_again(tmp_path: Path) -> None:
    """The very first, under its own number, and the study ends as one that ran through."""
    through = run(tmp_path / "through.db", 4)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed.db", 4, stop_at(0))
    assert [trial.state for trial in TrialLog(tmp_path / "killed.db", with_latency=False).study.trials] == [
        TrialState.RUNNING
    ]
    again = run(tmp_path / "killed.db", 4)
    assert content(again) == content(through)
    assert [trial.state for trial in again.log.study.trials] == [TrialState.COMPLETE] * 4


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "{a}", "a b", "?mode=ro"])
def test_a_path_is_not_a_url(tmp_path: Path, name: str) -> None:
    """Characters that mean something in a URL are part of the file's name: two studies never share a database."""
    folder = tmp_path / name
    folder.mkdir()
    TrialLog(folder / "study.db", with_latency=False)
    assert (folder / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_nothing_finished_is_measured_again(tmp_path: Path) -> None:
    first, second = World(), World()
    run(tmp_path / "study.db", 5, first)
    race = run(tmp_path / "study.db", 8, second)
    assert len(first.asked) == 5
    assert len(second.asked) == 3
    assert [trial.number for trial in race.log.measured()] == list(range(8))
    assert content(race) == content(run(tmp_path / "study.db", 8, stop_at(0)))  # nothing left to measure


def test_a_value_that_is_not_finite_fails_its_trial_alone(tmp_path: Path) -> None:
    """The study goes on, and the failed plan is on no front."""
    world = World(lambda turn: EvaluationError("kl is nan; the plan is left out") if turn == 1 else None)
    race = run(tmp_path / "study.db", 5, world)
    states = [trial.state for trial in race.log.study.trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, *[TrialState.COMPLETE] * 3]
    assert race.log.study.trials[1].user_attrs["failure"] == "kl is nan; the plan is left out"
    assert 1 not in race.history


def test_a_plan_that_failed_is_not_proposed_again(tmp_path: Path) -> None:
    """Else the sampler, which learnt nothing from it, would propose it ten times and stop the study."""
    bad: set[Plan] = set()

    def measure(plan: Plan, sequences: int | None) -> Quality:
        if len(race.history) == 3 and not bad or plan in bad:
            bad.add(plan)
            tried.append(plan)
            raise EvaluationError("kl is nan")
        return toys.quality_of(1e-3 + toys.sum_of(SPACE, plan, PROBLEM.losses))

    tried: list[Plan] = []
    race = Race(
        TrialLog(tmp_path / "study.db", with_latency=False), PROBLEM, "frontier", SEEDS, measure, lambda plan: None
    )
    race.run(trials=12, finished=lambda trial: None)
    assert len(tried) == 1


def test_a_model_that_outgrows_memory_fails_its_trial(tmp_path: Path) -> None:
    faults = {0: MemoryError(), 1: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")}
    race = run(tmp_path / "study.db", 4, World(faults.get))
    assert [trial.state for trial in race.log.study.trials[:2]] == [TrialState.FAIL] * 2
    assert len(race.history) == 2
    with pytest.raises(RuntimeError, match="a bug"):
        run(tmp_path / "other.db", 4, World(lambda turn: RuntimeError("a bug")))


def test_ten_failures_in_a_row_stop_the_study(tmp_path: Path) -> None:
    """What was measured is kept; nine in a row do not stop it."""
    with pytest.raises(EvaluationError, match=f"{MOST_FAILURES} trials in a row failed, the last one: kl is nan"):
        run(tmp_path / "study.db", 40, World(lambda turn: EvaluationError("kl is nan") if turn >= 2 else None))
    assert len(TrialLog(tmp_path / "study.db", with_latency=False).measured()) == 2
    nine = World(lambda turn: EvaluationError("kl is nan") if 2 <= turn < 1 + MOST_FAILURES else None)
    assert len(run(tmp_path / "other.db", 14, nine).history) == 5


def test_the_same_plan_is_measured_once(tmp_path: Path) -> None:
    """Where two seeds are one plan, both trials hold what was measured for the first."""
    world = World()
    race = run(tmp_path / "study.db", 3, world, seeds=[*SEEDS, SEEDS[0]])
    assert len(world.asked) == 2
    assert race.history[2].plan == race.history[0].plan
    assert race.history[2].loss == race.history[0].loss


@pytest.fixture
def ten_second_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], Race]:
    """A race on a clock of its own, which it moves by ten seconds for each trial; the clock's time, and the race."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def measure(plan: Plan, sequences: int | None) -> Quality:
        now[0] += 10
        return toys.quality_of(0.1 + len(race.history))

    race = Race(
        TrialLog(tmp_path / "study.db", with_latency=False), PROBLEM, "frontier", SEEDS, measure, lambda plan: None
    )
    return now, race


def test_the_clock_stops_before_the_deadline(ten_second_race: tuple[list[float], Race]) -> None:
    """No trial is begun that would end after it, judged by the longest so far."""
    now, race = ten_second_race
    race.run(trials=None, clock=Clock(ends=35.0), finished=lambda trial: None)
    assert now[0] == 30.0
    assert len(race.history) == 3


def test_trials_leave_time_to_the_steps_after_them(ten_second_race: tuple[list[float], Race]) -> None:
    """The time still needed is asked before each trial, since it may grow; without a limit it is not asked."""
    now, race = ten_second_race
    race.run(
        trials=None, clock=Clock(ends=100.0), reserved=lambda: 12.0 * len(race.history), finished=lambda trial: None
    )
    assert now[0] == 50.0  # a sixth would leave 40 of 60
    race.run(trials=6, reserved=lambda: 1 / 0, finished=lambda trial: None)
    assert race.trial_seconds == 10.0


def test_what_is_left_is_what_was_not_read(tmp_path: Path) -> None:
    """For the count and for patience; a plan that was stopped early leaves more."""
    race = run(tmp_path / "study.db", 5)
    assert race.left(20, "off") == 15.0
    assert race.left(5, "off") == race.left(4, "off") == 0.0
    assert race.left(None, "off") == math.inf
    assert 0 < race.left(20, 3) <= 3 + len(SEEDS)


def test_everyone_is_told_of_every_trial(tmp_path: Path) -> None:
    told: list[Trial] = []
    race = Race(
        TrialLog(tmp_path / "study.db", with_latency=False), PROBLEM, "frontier", SEEDS, World(), lambda plan: None
    )
    race.run(trials=3, finished=told.append)
    assert told == list(race.history.values())
    assert all(math.isfinite(trial.seconds) for trial in told)
