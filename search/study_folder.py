"""A study's folder: of one study, of the same weights and texts, and whether it is finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from paredown.search.measurements import MEASUREMENTS
from paredown.search.outcome import Outcome, stored_outcome
from paredown.space.errors import OutputError, StudyError
from paredown.space.files import write_atomically
from paredown.space.study_file import StudyFile
from paredown.space.temporary import remove_abandoned


def tidy(folder: Path) -> None:
    """Removes the files that a killed search was writing, bank apart; for the process that holds the folder."""
    for place in (folder, folder / "best", folder / MEASUREMENTS, folder / "select", *folder.glob("front/*")):
        remove_abandoned(place, ".")


ENVIRONMENT = "environment.json"
"""Versions and machines that the study ran on, each with the time when it first did."""


def same_study(folder: Path, question: StudyFile) -> None:
    """Makes sure that a folder is free or holds this study, and writes the question there.

    Raises:
        StudyError: If it holds trials of another study, or something else.
    """
    path = folder / "study.yaml"
    if path.is_file():
        before, now = StudyFile.read(path).question(), question.question()
        differs = sorted(key for key in now if now[key] != before.get(key))
        if differs and (folder / "study.db").is_file():  # before the first trial the question may be mended
            raise StudyError(
                f"{folder} holds another study (other {', '.join(differs)}); "
                "choose another folder with --out, or `paredown select` for another budget"
            )
    elif any(folder.glob("[!.]*")):
        raise StudyError(f"{folder} exists and is no study folder; choose another with --out")
    question.write(path)


def moved_aside(folder: Path) -> Path:
    """Renames a folder to ``NAME.before-N``, with the first N that is free; where it is now.

    Raises:
        OutputError: If it cannot be renamed.
    """
    number = 1
    while (aside := folder.with_name(f"{folder.name}.before-{number}")).exists():
        number += 1
    try:
        folder.rename(aside)
    except OSError as error:
        raise OutputError(
            f"cannot move {folder} to {aside}: {error.strerror}; choose another folder with --out"
        ) from None
    return aside


def keep_environment(folder: Path, found: Mapping[str, str | int]) -> None:
    """Adds versions and machine to ``environment.json``, with the time, unless the study ran there before."""
    path = folder / ENVIRONMENT
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        before = []
    if isinstance(before, dict):  # of an older version, which kept the last one only
        before = [{"since": None, **before}]
    known = [each for each in before if isinstance(each, dict)] if isinstance(before, list) else []
    if not any({key: value for key, value in each.items() if key != "since"} == found for each in known):
        known.append({"since": datetime.now(UTC).isoformat(timespec="seconds"), **found})
    write_atomically(path, json.dumps(known, indent=1))


def finished(folder: Path, question: StudyFile) -> Outcome | None:
    """The outcome of this very study, if no trial is left to measure and nothing is missing of the winner's choice."""
    outcome = stored_outcome(folder)
    if outcome is None:
        return None
    counted = question.trials is not None and outcome.spent >= question.trials
    waited = bool(outcome.ended) and outcome.patience == question.patience
    chosen = outcome.state == "finished" and not outcome.unselected and not outcome.unguarded
    return outcome if chosen and (counted or waited) else None


def database_url(path: Path) -> str:
    """What Optuna opens a SQLite file by; ``?``, ``#`` and ``%`` may be part of the path, and braces, which Optuna would fill in."""
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    return url.replace("{", "%7B").replace("}", "%7D")
