"""``inputs.json`` of a study folder: texts, weights, configuration and libraries that its trials were measured with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from paredown.compressors.original.origin import Origin
from paredown.space.errors import StudyError
from paredown.space.system.files import read_json, write_json

FILE = "inputs.json"
SHOWN = 4
"""Most changes that a message names."""


class Adopted(BaseModel):
    """Changes accepted with ``--adopt``, and when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    when: str
    changes: list[str]


class Inputs(BaseModel):
    """Everything that the numbers of a study depend on.

    Attributes:
        texts: Fingerprint of the sequences of each set.
        origin: Fingerprints of the model, and the libraries that run it.
        adopted: Changes accepted during the study.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    texts: dict[str, str]
    origin: Origin
    adopted: list[Adopted] = []

    def named(self) -> dict[str, Any]:
        """Each value by its name."""
        return {f"{name} texts": value for name, value in self.texts.items()} | self.origin.named()


def changes(folder: Path, inputs: Inputs) -> list[str]:
    """Differences from the inputs that the folder's trials were measured with, in words; empty if it has no trials."""
    if not (folder / "study.db").is_file():
        return []
    try:
        before = read_json(folder / FILE, Inputs, StudyError, "")
    except StudyError:
        known = (folder / FILE).is_file()
        return [
            f"{FILE} is {'damaged or of an older version' if known else 'missing'}, so the earlier inputs are unknown"
        ]
    return differences(before.named(), inputs.named())


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``torch 2.12.0 -> 2.13.0`` for each name whose value differs."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{name} {_shown(before.get(name))} -> {_shown(now.get(name))}" for name in names]


def refuse(folder: Path, changed: list[str]) -> StudyError:
    """The error for changed inputs, with both remedies."""
    more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return StudyError(
        f"the inputs of {folder} changed ({'; '.join(changed[:SHOWN])}{more}); add --fresh to move that folder aside "
        "and start over, or --adopt to resume with its trials as they are"
    )


def keep(folder: Path, inputs: Inputs, changed: list[str]) -> None:
    """Writes the inputs, with the changes accepted now and before."""
    try:
        adopted = read_json(folder / FILE, Inputs, StudyError, "").adopted
    except StudyError:
        adopted = []
    if changed:
        adopted = [*adopted, Adopted(when=datetime.now(UTC).isoformat(timespec="seconds"), changes=changed)]
    write_json(folder / FILE, inputs.model_copy(update={"adopted": adopted}).model_dump())


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
