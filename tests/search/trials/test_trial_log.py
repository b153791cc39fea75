"""The log of trials: what is written comes back, and faults of the disk are said."""

from __future__ import annotations

from pathlib import Path

import pytest

from paredown.search.trials.trial_log import TrialLog
from paredown.space.errors import OutputError
from tests.search.trials.test_race import PROBLEM, run


def test_a_trial_comes_back_as_it_was(tmp_path: Path) -> None:
    race = run(tmp_path / "study.db", 4, timed=True)
    assert TrialLog(tmp_path / "study.db", with_latency=True).measured() == list(race.history.values())
    assert [trial.values for trial in race.log.study.trials] == [
        [r.size_bytes, r.loss, 2.0] for r in race.history.values()
    ]


def test_what_exceeds_the_budget_is_marked_infeasible(tmp_path: Path) -> None:
    """As Optuna keeps it, and as its dashboard reads it."""
    race = run(tmp_path / "study.db", 4)
    for trial, measured in zip(race.log.study.trials, race.history.values(), strict=True):
        excess = measured.size_bytes - PROBLEM.budget_bytes
        assert trial.system_attrs["constraints"] == [excess]
        assert trial.constraints["budget"] == excess
    assert race.history[0].size_bytes > PROBLEM.budget_bytes > race.history[1].size_bytes


def test_a_database_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write .*to resume"):
        TrialLog(tmp_path / "file" / "study.db", with_latency=False)
