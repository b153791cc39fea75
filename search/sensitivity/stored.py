"""``sensitivity.json`` of a study folder: predicted loss of each choice before the first trial. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt

from paredown.space.choice import Choice, parse_choice
from paredown.space.errors import StudyError
from paredown.space.system.files import read_json

SENSITIVITY = "sensitivity.json"


class SensitivityFile(BaseModel):
    """Content of the file.

    Attributes:
        key: Fingerprint of everything that the losses depend on.
        estimator: Name of the estimator.
        forward_tokens: Tokens of forward passes, in passes of the whole model.
        backward_tokens: Tokens of backward passes.
        losses: Site, choice and predicted loss.
        angular_distances: Angular distance between input and output of each block [half turns].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    estimator: str
    forward_tokens: NonNegativeInt
    backward_tokens: NonNegativeInt
    losses: list[tuple[str, str, FiniteFloat]]
    angular_distances: list[float]


def read_sensitivity(path: Path) -> SensitivityFile:
    """Content of a sensitivity file.

    Raises:
        StudyError: If it is missing, damaged, or of an older version.
    """
    return read_json(path, SensitivityFile, StudyError, "run the search again to rewrite it")


def read_losses(stored: SensitivityFile) -> dict[tuple[str, Choice], float]:
    """Sensitivities from the content of ``sensitivity.json``."""
    return {(site, parse_choice(choice)): loss for site, choice, loss in stored.losses}
