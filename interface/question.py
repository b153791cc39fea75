"""The study that a person asks for: from a file, from flags, from a mapping; and the files beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from paredown.space.errors import StudyError
from paredown.space.paths import expanded
from paredown.space.study_file import StudyFile

Study = StudyFile | Mapping[str, Any] | str | Path
"""A study: the value, its fields, or a file."""

DEFAULT_TRIALS = 100


def as_study(study: Study) -> StudyFile:
    """The study that a value, a mapping of its fields or a file gives.

    Raises:
        StudyError: With every fault.
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


def question_of(file: Path | None, flags: Mapping[str, Any]) -> StudyFile:
    """The study of a file with the flags that were given over it.

    Raises:
        StudyError: With every fault; if neither names a model.
    """
    given = {name: value for name, value in flags.items() if value is not None and value != []}
    base = StudyFile.read(expanded(file)).model_dump(mode="json", exclude_unset=True) if file else {}
    if "model" not in base | given:
        raise StudyError("no model to compress; give a study file, or --model")
    return as_study(base | given)


def with_an_end(question: StudyFile) -> StudyFile:
    """The study, which is given at most 100 trials if no count, no clock and no number of patience ends it."""
    ends = (question.trials, question.timeout, question.until)
    if all(end is None for end in ends) and not isinstance(question.patience, int):
        return question.model_copy(update={"trials": DEFAULT_TRIALS})
    return question


def demo_question(file: Path | None, flags: Mapping[str, Any]) -> StudyFile:
    """The demo's study with flags over it; its model is named from the project's folder, whatever folder this is.

    Raises:
        StudyError: With every fault; if there is no such file.
    """
    file = expanded(file or demo_study())
    question = question_of(file, flags)
    if Path(question.model).is_dir():
        return question
    return question.model_copy(update={"model": os.path.relpath(file.resolve().parent.parent / question.model)})


def demo_study() -> Path:
    """The demo's study file: below the current folder or one above it, or beside the package in a checkout.

    Raises:
        StudyError: If it is in none of them.
    """
    folders = [Path.cwd(), *Path.cwd().parents, Path(__file__).parents[1]]
    found = next(
        (folder / "studies" / "demo.yaml" for folder in folders if (folder / "studies" / "demo.yaml").is_file()), None
    )
    if found is None:
        raise StudyError(
            "no studies/demo.yaml from here upwards; run it in the project's folder, or name it with --study"
        )
    return found


def study_bank(plan: Path) -> Path | None:
    """The bank of the study folder that a plan's file lies in (``best/plan.yaml``, ``front/0012/plan.yaml``); None if there is none."""
    folders = [parent / "bank" for parent in plan.resolve().parents[1:3] if (parent / "study.yaml").is_file()]
    return next((folder for folder in folders if folder.is_dir() and os.access(folder, os.W_OK)), None)
