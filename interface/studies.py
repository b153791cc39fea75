"""Studies from files, flags or mappings, and the files that belong to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from paredown.space.errors import StudyError
from paredown.space.study_file import StudyFile
from paredown.space.system.paths import expanded

Study = StudyFile | Mapping[str, Any] | str | Path
"""A study as a value, as a mapping of its fields, or as the path of its file."""

DEFAULT_TRIALS = 100
"""Trial limit of a study that sets no limit of its own."""


def as_study(study: Study) -> StudyFile:
    """The study as a value.

    Raises:
        StudyError: If the study is invalid; the message lists all faults.
    """
    if isinstance(study, StudyFile):
        return study
    if not isinstance(study, Mapping):
        return StudyFile.read(expanded(study))
    try:
        return StudyFile.model_validate(dict(study))
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        raise StudyError("; ".join(faults)) from None


def study_of(file: Path | None, flags: Mapping[str, Any]) -> StudyFile:
    """The study of a file, overridden by the flags that were given.

    Raises:
        StudyError: If the study is invalid or names no model; the message lists all faults.
    """
    given = {name: value for name, value in flags.items() if value is not None and value != []}
    base = StudyFile.read(expanded(file)).model_dump(mode="json", exclude_unset=True) if file else {}
    if "model" not in base | given:
        raise StudyError("no model to compress; give a study file, or --model")
    return as_study(base | given)


def with_an_end(study_file: StudyFile) -> StudyFile:
    """The study, limited to `DEFAULT_TRIALS` if it has no trial limit, time limit or number as patience."""
    ends = (study_file.trials, study_file.timeout, study_file.until)
    if all(end is None for end in ends) and not isinstance(study_file.patience, int):
        return study_file.model_copy(update={"trials": DEFAULT_TRIALS})
    return study_file


def demo_study(file: Path | None, flags: Mapping[str, Any]) -> StudyFile:
    """The demo's study, overridden by flags; its model is found relative to the project folder from any current folder.

    Raises:
        StudyError: If the file is missing or the study is invalid; the message lists all faults.
    """
    file = expanded(file or demo_path())
    study_file = study_of(file, flags)
    if Path(study_file.model).is_dir():
        return study_file
    return study_file.model_copy(update={"model": os.path.relpath(file.resolve().parent.parent / study_file.model)})


def demo_path() -> Path:
    """The demo's study file: in the current folder, a folder above it, or next to the package in a checkout.

    Raises:
        StudyError: If it is in none of them.
    """
    folders = [Path.cwd(), *Path.cwd().parents, Path(__file__).parents[1]]
    found = next(
        (folder / "studies" / "demo.yaml" for folder in folders if (folder / "studies" / "demo.yaml").is_file()), None
    )
    if found is None:
        raise StudyError(
            "no studies/demo.yaml in this folder or above; run the command in the project folder, or give --study"
        )
    return found


def study_bank(plan: Path) -> Path | None:
    """The writable bank of the study folder that contains a plan file; None if there is none.

    Plan files are ``best/plan.yaml`` and ``front/0012/plan.yaml``.
    """
    folders = [parent / "bank" for parent in plan.resolve().parents[1:3] if (parent / "study.yaml").is_file()]
    return next((folder for folder in folders if folder.is_dir() and os.access(folder, os.W_OK)), None)
