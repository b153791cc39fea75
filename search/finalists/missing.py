"""What a study lacks when a time limit ended it, and the command that completes it."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from pathlib import Path

from paredown.search.outcome.outcome import Outcome
from paredown.space.study_file import StudyFile

UNMEASURED = "no time was left for the first trial: no plan was measured"
"""Reason why an outcome without trials is unguarded."""


def completion(study_file: StudyFile, folder: Path, bank: Path, seconds: float = 0.0, trials: int = 0) -> str:
    """The command that resumes a study with more time.

    Args:
        study_file: The study.
        folder: Study folder.
        bank: Folder of the bank.
        seconds: Expected time of the missing steps [s].
        trials: Fewest trials that must be measured.
    """
    command = ["paredown", "search", str(folder / "study.yaml"), "--out", str(folder)]
    if bank != folder / "bank":
        command += ["--bank", str(bank)]
    if study_file.timeout is not None:
        command += ["--timeout", str(math.ceil(2 * max(study_file.timeout, seconds)))]
    if study_file.trials is not None and study_file.trials < trials:
        command += ["--trials", str(trials)]
    return shlex.join(command)


def unmeasured_rival(outcome: Outcome, of: int) -> Outcome:
    """The outcome, marked as unguarded if the trials ended before a uniform plan within the budget was measured.

    Args:
        outcome: Outcome with its winner.
        of: Number of plans that every study measures first.
    """
    decision = outcome.decision
    if decision.uniform is not None or decision.unguarded or outcome.trials.count >= of:
        return outcome
    unguarded = "the trials ended before a uniform plan within the budget was measured"
    return replace(outcome, decision=replace(decision, unguarded=unguarded))
