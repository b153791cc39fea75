"""``sensitivity.json`` of a study folder: what each choice was predicted to lose before the first trial; imports no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt

from paredown.space.errors import StudyError
from paredown.space.files import read_json

SENSITIVITY = "sensitivity.json"


class SensitivityFile(BaseModel):
    """What the file holds.

    Attributes:
        key: Fingerprint of the question that the losses answer.
        estimator: Name of the estimator.
        forward_tokens: Read forward, in passes of the whole model.
        backward_tokens: Read backward.
        losses: Site, choice and predicted loss.
        angular_distances: Between input and output of each block [half turns].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    estimator: str
    forward_tokens: NonNegativeInt
    backward_tokens: NonNegativeInt
    losses: list[tuple[str, str, FiniteFloat]]
    angular_distances: list[float]


def read_sensitivity(path: Path) -> SensitivityFile:
    """The content of a file.

    Raises:
        StudyError: If it is missing, damaged, or of an older version.
    """
    return read_json(path, SensitivityFile, StudyError, "run the search again: it makes it again")
