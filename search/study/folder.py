"""The study folder: its lock on one study, its environment log, and whether the study is finished."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from paredown.search.finalists.measurements import MEASUREMENTS
from paredown.search.outcome.front_file import stored_outcome
from paredown.search.outcome.outcome import Outcome
from paredown.space.errors import OutputError, StudyError
from paredown.space.study_file import StudyFile
from paredown.space.system.files import write_atomically
from paredown.space.system.locks import held
from paredown.space.system.temporary import remove_abandoned


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a study folder for this process.

    Raises:
        StudyError: If another process holds it.
        OutputError: If the folder cannot be written.
    """
    with held(
        folder,
        StudyError(f"another search runs in {folder}; wait for it, stop it, or choose another folder with --out"),
    ):
        yield


def tidy(folder: Path) -> None:
    """Removes temporary files that a killed search left, except in the bank; the caller must hold the folder."""
    for place in (folder, folder / "best", folder / MEASUREMENTS, folder / "select", *folder.glob("front/*")):
        remove_abandoned(place, ".")


ENVIRONMENT = "environment.json"
"""File name of the log of versions and machines that the study ran on, each with the time of its first use."""


def same_study(folder: Path, study_file: StudyFile) -> None:
    """Checks that a folder is empty or holds this study, and writes its file there.

    Raises:
        StudyError: If it holds trials of another study, or is not a study folder.
    """
    path = folder / "study.yaml"
    if path.is_file():
        before, now = StudyFile.read(path).fixed_settings(), study_file.fixed_settings()
        differs = sorted(key for key in now if now[key] != before.get(key))
        if differs and (folder / "study.db").is_file():  # before the first trial the study may be corrected
            raise StudyError(
                f"{folder} holds another study (other {', '.join(differs)}); "
                "choose another folder with --out, or `paredown select` for another budget"
            )
    elif any(folder.glob("[!.]*")):
        raise StudyError(f"{folder} exists and is not a study folder; choose another with --out")
    study_file.write(path)


def moved_aside(folder: Path) -> Path:
    """Renames a folder to ``NAME.before-N`` with the first free N; returns the new path.

    Raises:
        OutputError: If it cannot be renamed, or holds the current folder, where paths would follow it.
    """
    if Path.cwd().is_relative_to(folder.resolve()):
        raise OutputError(f"cannot move {folder}: it holds the current folder; run the command from outside of it")
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
    """Appends versions and machine to ``environment.json`` with the current time, unless they are there already."""
    path = folder / ENVIRONMENT
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        before = []
    if isinstance(before, dict):  # an older version kept the last entry only
        before = [{"since": None, **before}]
    known = [each for each in before if isinstance(each, dict)] if isinstance(before, list) else []
    if not any({key: value for key, value in each.items() if key != "since"} == found for each in known):
        known.append({"since": datetime.now(UTC).isoformat(timespec="seconds"), **found})
    write_atomically(path, json.dumps(known, indent=1))


def finished(folder: Path, study_file: StudyFile) -> Outcome | None:
    """The outcome of this very study if no trial is left and the winner's choice is complete; else None."""
    outcome = stored_outcome(folder)
    if outcome is None:
        return None
    counted = study_file.trials is not None and outcome.trials.spent >= study_file.trials
    waited = bool(outcome.trials.ended) and outcome.question.patience == study_file.patience
    chosen = outcome.state == "finished" and outcome.decision.is_complete
    return outcome if chosen and (counted or waited) else None
