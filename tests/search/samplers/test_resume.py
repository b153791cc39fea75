"""Laws of every sampler: a study that is killed and resumed ends with the trials of one that ran through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage

from paredown.evaluators.quality import Quality
from paredown.search.samplers import Proposal, optuna_samplers, samplers
from paredown.search.trial import Trial
from paredown.search.trials.race import Race
from paredown.search.trials.trial_log import ATTRIBUTE, TrialLog
from paredown.space.plan import Plan
from shared import toys

SPACE = toys.toy_space()
PROBLEM = toys.problem_of(SPACE)
SEEDS = [
    ("uniform", Proposal(plan=Plan(), label="all kept")),
    ("solver", Proposal(plan=PROBLEM.solver.smallest(), label="smallest")),
]
TRIALS = 16

KILLS = {
    1: ("set_trial_param", None),  # a seed, half written down
    10: ("ask", None),  # begun, nothing proposed
    11: ("set_trial_param", None),  # half proposed
    12: ("evaluate", None),  # measured, nothing written
    13: ("set_trial_user_attr", ATTRIBUTE),  # written, not marked
    14: ("set_trial_system_attr", "constraints"),  # marked, not finished
}
"""After which write of a trial, by its number, the process dies; the value is the name of what is written."""


class Killed(BaseException):
    """The process is gone."""


def measured(plan: Plan) -> float:
    """A loss that is not the sum of the sensitivities, so that samplers learn something."""
    return 1e-3 + toys.sum_of(SPACE, plan, PROBLEM.losses) ** 1.3


def run(path: Path, sampler: str) -> TrialLog:
    """Trials in a database, as a process that was just started runs them."""

    def measure(plan: Plan, sequences: int | None) -> Quality:
        return toys.quality_of(measured(plan))

    race = Race(TrialLog(path, with_latency=False), PROBLEM, sampler, SEEDS, measure, lambda plan: None)
    race.run(trials=TRIALS, finished=lambda trial: None)
    return race.log


def table(log: TrialLog) -> list[tuple[Any, ...]]:
    """All that a database holds of the trials but clocks."""
    rows = []
    for trial in log.study.get_trials():
        record = {key: value for key, value in trial.user_attrs[ATTRIBUTE].items() if key != "seconds"}
        rows.append(
            (trial.number, trial.state, trial.values, trial.params, trial.constraints, trial.system_attrs, record)
        )
    return rows


class Dying:
    """Dies once after each of the writes in `KILLS`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.died: list[int] = []
        for name in ("set_trial_param", "set_trial_user_attr", "set_trial_system_attr"):
            patch.setattr(RDBStorage, name, self._dying(name, getattr(RDBStorage, name)))
        patch.setattr(TrialLog, "ask", self._dying_in("ask", TrialLog.ask))
        patch.setattr(Race, "_evaluate", self._dying_in("evaluate", Race._evaluate))

    def after(self, name: str, number: int, written: Sequence[object] = ()) -> None:
        method, key = KILLS.get(number, (None, None))
        if method == name and (key is None or key in written) and number not in self.died:
            self.died.append(number)
            raise Killed

    def _dying(self, name: str, write: Callable[..., None]) -> Callable[..., None]:
        def written(storage: RDBStorage, trial: int, *arguments: Any, **named: Any) -> None:
            write(storage, trial, *arguments, **named)
            self.after(name, storage.get_trial(trial).number, [*arguments, *named.values()])

        return written

    def _dying_in(self, name: str, step: Callable[..., optuna.Trial | Trial]) -> Callable[..., optuna.Trial | Trial]:
        def done(*arguments: Any) -> optuna.Trial | Trial:
            result = step(*arguments)
            self.after(name, result.number)
            return result

        return done


@pytest.mark.parametrize("sampler", list(samplers))
def test_a_killed_study_ends_as_one_that_ran_through(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Number, plan, loss, origin and parameters of every trial, wherever in a trial the process died."""
    monkeypatch.setattr(optuna_samplers, "POPULATION", 4)
    through = table(run(tmp_path / "through.db", sampler))
    with monkeypatch.context() as patch:
        dying = Dying(patch)
        for _ in KILLS:
            try:
                run(tmp_path / "killed.db", sampler)
            except Killed:
                continue
            break
    assert {10, 12, 13, 14} <= set(dying.died)
    assert table(run(tmp_path / "killed.db", sampler)) == through
