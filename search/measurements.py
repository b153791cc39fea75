"""Measurements of the finalists, on disk from the moment they are made."""

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
from paredown.space.files import read_json, write_json
from paredown.space.plan import Plan
from paredown.space.plan_file import choices_of

if TYPE_CHECKING:
    from paredown.evaluators.quality import Quality  # imports torch
    from paredown.search.pace import Measure, Measurement
    from paredown.search.rebuild import Version

MEASUREMENTS = "finalists"
"""Folder of a study folder that holds them."""

SCHEMA = 1


class Measurements:
    """Measurements of versions of plans, each made once: what an earlier run measured of the same plan on the same inputs is read.

    Args:
        folder: One file for each measurement, named by the hash of what it depends on.
        inputs: Fingerprints of weights, texts and whatever else decides a measurement.
        calibration_sha256: Fingerprint of a draw of the calibration texts.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any], calibration_sha256: Callable[[int], str]) -> None:
        self.folder, self.inputs = folder, dict(inputs)
        self._calibration_sha256 = cache(calibration_sha256)

    def holds(self, measurement: Measurement) -> bool:
        """Whether a measurement is on disk."""
        return self.folder.is_dir() and _read(self._path(self._about(*measurement))) is not None

    def measure(self, make: Measure, plan: Plan, name: str, version: Version) -> Quality:
        """The quality of a version of a plan on a set.

        Args:
            make: Makes the measurement, where none is on disk.
            plan: The plan.
            name: Of the set.
            version: Of the plan.

        Raises:
            EvaluationError: If a prediction is not finite; that is remembered, too.
            OutputError: If it cannot be written.
        """
        about = self._about(plan, name, version)
        path = self._path(about)
        if (found := _read(path)) is None:
            found = _made(partial(make, plan, name, version))
            write_json(path, {"about": about, "found": found})
        if "failure" in found:
            raise EvaluationError(found["failure"])
        return _quality(found)

    def _about(self, plan: Plan, name: str, version: Version) -> dict[str, Any]:
        """All that a measurement depends on."""
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
    """What was found, as a file holds it; None if it is missing, damaged, or of something else than its name says."""
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
