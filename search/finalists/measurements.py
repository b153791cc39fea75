"""Measurements of finalists, stored on disk as soon as they are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from paredown.space.errors import EvaluationError, StudyError
from paredown.space.plan import Plan
from paredown.space.plan_file import choices_of
from paredown.space.system.files import read_json, write_json

if TYPE_CHECKING:
    from paredown.evaluators.quality import Quality  # imports torch
    from paredown.search.finalists.pace import Measure, Measurement
    from paredown.search.finalists.rebuild import Version

MEASUREMENTS = "finalists"
"""Folder of the measurements in a study folder."""

SCHEMA = 1
"""Version of the stored format, part of every key."""


class Measurements:
    """Measures versions of plans once; a resumed run reads what an earlier run measured on the same inputs.

    Args:
        folder: Folder with one file for each measurement, named by the hash of everything that it depends on.
        inputs: Fingerprints of weights, texts and everything else that a measurement depends on.
        calibration_sha256: Returns the fingerprint of a calibration draw, given its number.
        say: Called with a line for each damaged file that is measured again.
    """

    def __init__(
        self,
        folder: Path,
        inputs: Mapping[str, Any],
        calibration_sha256: Callable[[int], str],
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder, self.inputs, self.say = folder, dict(inputs), say
        self._calibration_sha256 = cache(calibration_sha256)

    def holds(self, measurement: Measurement) -> bool:
        """Whether a measurement is on disk."""
        return self.folder.is_dir() and _read(self._path(self._about(*measurement))) is not None

    def measure(self, make: Measure, plan: Plan, name: str, version: Version) -> Quality:
        """The quality of a version of a plan on a set.

        Args:
            make: Makes the measurement if none is on disk.
            plan: The plan.
            name: Name of the set.
            version: Version of the plan.

        Raises:
            EvaluationError: If a prediction is not finite; such failures are stored, too.
            OutputError: If the file cannot be written.
        """
        about = self._about(plan, name, version)
        path = self._path(about)
        if (found := _read(path)) is None:
            if path.is_file():
                self.say(f"{path} is damaged: it is measured again")
            found = _made(partial(make, plan, name, version))
            write_json(path, {"about": about, "found": found})
        if "failure" in found:
            raise EvaluationError(found["failure"])
        return _quality(found)

    def _about(self, plan: Plan, name: str, version: Version) -> dict[str, Any]:
        """Everything that a measurement depends on."""
        return {
            "schema": SCHEMA,
            "set": name,
            "in_order": version.in_order,
            "draw": version.draw,
            "calibration": self._calibration_sha256(version.draw),
            "inputs": self.inputs,
            "choices": choices_of(plan),
        }

    def _path(self, about: Mapping[str, Any]) -> Path:
        return self.folder / f"{_sha256(about)}.json"


def _made(make: Callable[[], Quality]) -> dict[str, Any]:
    try:
        made = make()
    except EvaluationError as error:
        return {"failure": str(error)}
    return {
        "metric": made.metric,
        "totals": made.totals.tolist(),
        "tokens": made.tokens.tolist(),
        "perplexity": made.perplexity,
        "sequences": list(made.sequences),
    }


class _Stored(BaseModel):
    about: dict[str, Any]
    found: dict[str, Any]


def _read(path: Path) -> dict[str, Any] | None:
    """The result stored in a file; None if the file is missing, damaged, or does not match the hash in its name."""
    try:
        stored = read_json(path, _Stored, StudyError, "")
    except StudyError:
        return None
    return stored.found if path.stem == _sha256(stored.about) else None


def _quality(found: Mapping[str, Any]) -> Quality:
    from paredown.evaluators.quality import Quality

    return Quality(
        metric=found["metric"],
        totals=np.array(found["totals"], dtype=np.float64),
        tokens=np.array(found["tokens"], dtype=np.float64),
        perplexity=found["perplexity"],
        sequences=tuple(found["sequences"]),
    )


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
