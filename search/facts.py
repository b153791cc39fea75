"""What was measured of single choices, kept by content: a new budget or new choices cost only what is new."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from paredown.compressors.bank import Bank
from paredown.space.errors import OutputError, StudyError
from paredown.space.files import read_json, write_json

FILE = "sensitivity.json"
"""Lies with the statistics of the same texts and weights, so that every study that shares the bank finds it."""

WRITE_SECONDS = 5.0


class FactsFile(BaseModel):
    """What the file holds; a number may be infinite where a choice broke the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[2] = 2
    facts: dict[str, float]


def facts_of(bank: Bank) -> Path | None:
    """The file of facts beside a bank's statistics; None where these are not on disk."""
    folder = getattr(bank.statistics, "folder", None)
    return folder / FILE if folder else None


class Facts:
    """Numbers by key, in memory and in a file; of two processes that write one file, what the later one knows stays.

    Args:
        path: The file; None to keep nothing. What it holds is valid for one set of weights and texts.
        say: Called with a line where the file is damaged: what it held is measured again.

    Attributes:
        found: How many were asked for and known.
        made: How many were made.
    """

    def __init__(self, path: Path | None = None, say: Callable[[str], None] = lambda text: None) -> None:
        self.path, self.say = path, say
        self.found = self.made = 0
        self._known = self._read()
        self._new: dict[str, float] = {}
        self._written = time.monotonic()

    def get(self, key: str, make: Callable[[], float]) -> float:
        """The number of a key, made now if it is not known."""
        if key in self._known:
            self.found += 1
            return self._known[key]
        value = make()
        self.made += 1
        self._known[key] = self._new[key] = value
        if time.monotonic() - self._written > WRITE_SECONDS:
            self.write()
        return value

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def write(self) -> None:
        """Adds to the file what is new; where it cannot be written, the next search measures again."""
        if self.path and self._new:
            content = FactsFile(facts=self._read() | self._known)
            with suppress(OutputError):
                write_json(self.path, content.model_dump())
                self._new = {}
        self._written = time.monotonic()

    def _read(self) -> dict[str, float]:
        if self.path is None or not self.path.is_file():
            return {}
        try:
            return read_json(self.path, FactsFile, StudyError, "remove it").facts
        except StudyError as damage:
            self.say(f"{str(damage).rpartition(';')[0]}: what it held is measured again")
            return {}
