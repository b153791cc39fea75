"""The progress interface of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from paredown.search.outcome.outcome import Outcome
from paredown.search.trial import Trial


class Progress(Protocol):
    """Receives the progress of a search."""

    def step(self, name: str, done: int, of: int | None) -> None:
        """A step began or advanced; ``of`` is None while its length is unknown."""

    def trial(self, trial: Trial, best: Trial | None, spent: float, of: int | None) -> None:
        """A trial ended; ``spent`` of the requested number of whole trials is used, ``of`` is None without a number."""

    def expect(self, seconds: float) -> None:
        """The search, with all its steps, is expected to end in this many seconds."""

    def say(self, text: str) -> None:
        """A sentence to show the user."""

    def publish(self, outcome: Outcome, folder: Path) -> None:
        """The outcome changed; reports may be rewritten."""
