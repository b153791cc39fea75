"""A limit holds for the whole run: what is on disk when it comes, and how the same study goes on."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import paredown
from paredown.cli.progress import Silent
from paredown.deploy.engines.transformers import TorchModel
from paredown.evaluators.quality import Quality
from paredown.search.outcome.outcome import Outcome
from paredown.search.report.verdict import summary_lines
from paredown.search.samplers import Proposal
from paredown.search.study.limit import check_limit
from paredown.search.study.prepare import prepare
from paredown.search.study.run import run_study
from paredown.search.study.session import opened
from paredown.search.trial import Trial
from paredown.search.trials.clock import Clock
from paredown.search.trials.race import Race
from paredown.search.trials.trial_log import TrialLog
from paredown.space.errors import StudyError
from paredown.space.plan import Plan
from paredown.space.study_file import StudyFile
from shared import commands, toys

Folder = Callable[[str], Path]
TRIALS = 14
SPACE = {
    "choices": {
        "linear": ["quantize bits=3", "quantize bits=4 algorithm=gptq", "quantize bits=8", "keep"],
        "embedding": ["quantize bits=8"],
    },
    "max_drops": 0,
}
TOKENS = {"calibration": 256, "search": 512, "selection": 256, "held_out": 512, "sequence_length": 32}


class Limited(Silent):
    """Ends the time of a run when a step begins, or when the trials are done; notes what it is told."""

    def __init__(self, folder: Path, at: str | None = None) -> None:
        super().__init__()
        self.folder, self.at = folder, at
        self.clock = Clock()
        self.steps: list[str] = []
        self.said: list[str] = []
        self.expected: list[float] = []
        self.plans: list[dict[str, Any]] = []

    def step(self, name: str, done: int, of: int | None) -> None:
        self.steps.append(name)
        self._end(name)

    def _end(self, step: str) -> None:
        if step == self.at:
            object.__setattr__(self.clock, "ends", 0.0)  # no search changes its clock: it is frozen

    def trial(self, trial: Trial, best: Trial | None, spent: float, of: int | None) -> None:
        self.steps.append("trial")
        if of is not None and spent >= of:
            self._end("trial")

    def say(self, text: str) -> None:
        self.said.append(text)
        if "can be applied now" in text:
            self.plans.append(yaml.safe_load((self.folder / "best" / "plan.yaml").read_text()))

    def expect(self, seconds: float) -> None:
        self.expected.append(seconds)


def searched(study_file: StudyFile, folder: Path, at: str | None = None) -> tuple[Outcome, Limited]:
    progress = Limited(folder, at)
    return run_study(study_file, folder, progress, TorchModel, workers=1, clock=progress.clock), progress


def plan_of(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "best" / "plan.yaml").read_text()))


@pytest.fixture(scope="module")
def study_file(pico: Folder, tmp_path_factory: pytest.TempPathFactory) -> StudyFile:
    text = toys.write_text(tmp_path_factory.mktemp("texts") / "text.txt", toys.passages(120))
    asked = {
        "model": str(pico("llama")),
        "data": [str(text)],
        "budget": "25%",
        "trials": TRIALS,
        "latency": "off",
        "patience": "off",
    }
    return StudyFile.model_validate({**asked, "tokens": TOKENS, "space": SPACE})


@pytest.fixture(scope="module")
def through(study_file: StudyFile, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Limited, Path]:
    """A study without a limit."""
    folder = tmp_path_factory.mktemp("through") / "study"
    return *searched(study_file, folder), folder


def test_the_solvers_plan_can_be_applied_before_the_first_trial(
    through: tuple[Outcome, Limited, Path], study_file: StudyFile
) -> None:
    """It is on disk when the search says so, marked as predicted, and is the plan of the first trial."""
    outcome, progress, folder = through
    (plan,) = progress.plans
    assert [word in progress.said[0] for word in ("best/plan.yaml", "not measured yet")] == [True, True]
    assert (plan["quality"]["measured_on"], plan["size_bytes"]) == ("predicted", outcome.trials.measured[0].size_bytes)
    assert plan["quality"]["mean"] == pytest.approx(outcome.trials.measured[0].expected.loss)
    assert plan["compared_with"] == {"unguarded": "not measured yet"}
    assert outcome.trials.measured[0].origin == "solver"
    path = folder.parent / "first.yaml"
    path.write_text(yaml.safe_dump(plan))
    applied, _ = paredown.apply(path, study_file.model, folder.parent / "model", check=False)
    assert applied.size_bytes == plan["size_bytes"] <= outcome.question.budget_bytes


def test_uniform_plans_within_the_budget_are_measured_first(through: tuple[Outcome, Limited, Path]) -> None:
    """So that a short run has a rival to be guarded by."""
    outcome, _, _ = through
    fits = [outcome.question.allows(trial) for trial in outcome.trials.measured if trial.origin == "uniform"]
    assert fits == sorted(fits, reverse=True)
    assert True in fits
    assert False in fits


def test_the_time_left_counts_the_steps_after_the_trials(through: tuple[Outcome, Limited, Path]) -> None:
    """While finalists and guard are measured there is time left, and less in the end."""
    _, progress, _ = through
    assert len(progress.expected) > TRIALS
    assert all(0 < seconds < math.inf for seconds in progress.expected)
    assert progress.expected[-1] < max(progress.expected[TRIALS - 1 :])


@pytest.mark.parametrize(("at", "origin"), [("bank", "uniform"), ("sensitivity", "uniform"), ("latency", "solver")])
def test_a_limit_before_the_first_trial_leaves_a_plan(
    study_file: StudyFile, through: tuple[Outcome, Limited, Path], tmp_path: Path, at: str, origin: str
) -> None:
    """One that can be applied, marked as not measured; the same study goes on to the same end."""
    folder = tmp_path / "study"
    outcome, progress = searched(study_file, folder, at)
    assert (outcome.state, outcome.trials.measured) == ("stopped", ())
    assert outcome.provisional
    assert outcome.provisional.origin == origin
    assert "trial" not in progress.steps
    assert (outcome.decision.unguarded, outcome.decision.winner) == (
        "no time was left for the first trial: no plan was measured",
        None,
    )
    assert plan_of(folder)["size_bytes"] <= outcome.question.budget_bytes
    assert ("mean" in plan_of(folder)["quality"]) == (origin == "solver")
    said = "\n".join(summary_lines(paredown.status(folder), folder))
    assert "unguarded" in said
    assert f"paredown search {folder / 'study.yaml'} --out {folder}" in said
    assert "unguarded" in (folder / "report.md").read_text()
    again, _ = searched(study_file, folder)
    whole, _, _ = through
    assert [r.plan for r in again.trials.measured] == [r.plan for r in whole.trials.measured]
    assert (again.decision, again.provisional) == (whole.decision, None)
    assert (again.decision.unguarded, again.decision.completion) == ("", "")


def test_a_limit_among_the_finalists_leaves_an_unguarded_plan(
    study_file: StudyFile, through: tuple[Outcome, Limited, Path], tmp_path: Path
) -> None:
    """It says so wherever the plan is shown; more time measures what is missing, and no trial again."""
    folder = tmp_path / "study"
    outcome, _ = searched(study_file, folder, "trial")
    assert outcome.state == "finished"
    assert outcome.decision.unguarded
    assert outcome.decision.unselected
    plan = plan_of(folder)
    assert (
        plan["compared_with"]["unguarded"]
        == json.loads((folder / "front.json").read_text())["unguarded"]
        == outcome.decision.unguarded
    )
    assert plan["compared_with"]["to_complete"] == outcome.decision.completion
    assert plan["quality"]["measured_on"] == "search"
    for text in ("\n".join(summary_lines(outcome, folder)), (folder / "report.md").read_text()):
        assert "unguarded" in text
        assert outcome.decision.completion in text
    again, progress = searched(study_file, folder)
    assert "trial" not in progress.steps
    assert again.decision.is_complete
    assert again.decision.completion == ""
    whole = through[0]
    assert again.decision == whole.decision


def test_the_time_left_is_of_what_is_still_to_come(
    study_file: StudyFile, through: tuple[Outcome, Limited, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials that are not run yet at the pace of those that were, then finalists and guard.

    What is done or on disk counts for nothing.
    """
    outcome, _, folder = through
    with opened(study_file, folder, Silent(), TorchModel, Clock(), workers=1) as session:
        prepared = prepare(session)
        session.publish(outcome)
    schedule = prepared.schedule
    resumed = schedule.after(outcome)
    session.pace.made.clear()
    session.stored.folder = tmp_path  # as before the finalists
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def measure(plan: Plan, sequences: int | None) -> Quality:
        now[0] += 3
        return toys.quality_of(1.0)

    seeds = [(trial.origin, Proposal(plan=trial.plan, label=trial.label)) for trial in outcome.trials.measured]
    log = TrialLog(tmp_path / "study.db", with_latency=False)
    race = Race(log, prepared.problem, "frontier", seeds, measure, lambda plan: None)
    race.run(trials=4, finished=lambda trial: None)
    after = schedule.after(outcome)
    assert after > resumed >= session.pace.closing > 0
    assert schedule.left(outcome, race, 10, "off") == pytest.approx(6 * 3 + after)
    assert schedule.left(outcome, race, 4, "off") == pytest.approx(after)
    race.run(trials=5, finished=lambda trial: None)
    assert schedule.left(outcome, race, 10, "off") == pytest.approx(5 * 3 + after)


def test_a_finished_study_says_that_its_trials_are_damaged(
    study_file: StudyFile, through: tuple[Outcome, Limited, Path], tmp_path: Path
) -> None:
    """Its plans stand; more trials need the database."""
    folder = tmp_path / "study"
    shutil.copytree(through[2], folder)
    (folder / "study.db").write_bytes(b"garbage")
    outcome, progress = searched(study_file, folder)
    assert outcome.decision.winner == through[0].decision.winner
    assert [line for line in progress.said if "its plans stand, but" in line and "study.db is damaged" in line]


def test_a_limit_that_is_too_short_is_refused(study_file: StudyFile, tmp_path: Path) -> None:
    """Before anything is written, with what would do; a study that was begun goes on with any."""
    takes = r"a search takes [\d,]+ to [\d,]+ s besides its trials; give --timeout \d+ or more"
    with pytest.raises(StudyError, match=f"a limit of 0.1 s is too short to begin: {takes}"):
        paredown.find_plan(study_file.model_copy(update={"timeout": 0.1}), tmp_path / "study")
    assert not (tmp_path / "study" / "study.yaml").exists()
    assert not (tmp_path / "study" / "best").exists()
    assert check_limit(study_file, Clock(), tmp_path) == ""
    (tmp_path / "inputs.json").write_text("{}")
    assert check_limit(study_file, Clock(ends=0.0), tmp_path) == ""


def test_a_search_of_the_command_line_counts_its_imports(
    pico: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process began long ago: what is left of the limit is nothing, and a plan is there all the same."""
    study = commands.write_study(tmp_path, pico("llama"))
    monkeypatch.setattr("paredown.cli.study_commands.process_began", lambda: -1e6)
    assert commands.call(monkeypatch, "search", study, "--out", tmp_path / "out", "--timeout", "1000000") == 0
    assert json.loads((tmp_path / "out" / "front.json").read_text())["state"] == "stopped"
    assert (tmp_path / "out" / "best" / "plan.yaml").is_file()
