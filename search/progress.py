"""Who is told how a search goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from paredown.search.outcome import Outcome
from paredown.search.record import Record


class Progress(Protocol):
    """Who is told how a search goes on."""

    def step(self, name: str, done: int, of: int | None) -> None:
        """A step was begun or went on; ``of`` is None while its length is not known."""

    def trial(self, record: Record, best: Record | None, spent: float, of: int | None) -> None:
        """A trial ended; the tokens of ``spent`` whole trials ``of`` those asked for are read."""

    def expect(self, seconds: float) -> None:
        """The search is expected to end in so many seconds, all of its steps counted."""

    def say(self, text: str) -> None:
        """A sentence for the person."""

    def publish(self, outcome: Outcome, folder: Path) -> None:
        """The outcome changed: reports may be drawn again."""
