"""Store of facts about single choices, keyed by content, so that a new budget or new choices reuse what is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from paredown.compressors.bank.bank import Bank
from paredown.space.errors import OutputError, StudyError
from paredown.space.system.files import read_json, write_json

FILE = "sensitivity.json"
"""The file of facts, next to the statistics of the same texts and weights; studies that share a bank share it."""

WRITE_SECONDS = 5.0
"""Least time between two writes of the file during a search [s]."""


class FactsFile(BaseModel):
    """Content of the file of facts; a number may be infinite if a choice broke the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[2] = 2
    facts: dict[str, float]


def facts_of(bank: Bank) -> Path | None:
    """Path of the file of facts next to a bank's statistics; None if the statistics are not on disk."""
    folder = getattr(bank.statistics, "folder", None)
    return folder / FILE if folder else None


class Facts:
    """Numbers by key, in memory and in a file. Each write merges with the file; on a conflict the last writer wins.

    Args:
        path: The file, valid for one set of weights and texts; None to store nothing.
        say: Called with a message if the file is damaged and its facts must be measured again.

    Attributes:
        found: Requests answered from memory or the file.
        made: Requests that had to be computed.
    """

    def __init__(self, path: Path | None = None, say: Callable[[str], None] = lambda text: None) -> None:
        self.path, self.say = path, say
        self.found = self.made = 0
        self._known = self._read()
        self._new: dict[str, float] = {}
        self._written = time.monotonic()

    def get(self, key: str, make: Callable[[], float]) -> float:
        """The number of a key; computed by ``make`` if it is not known."""
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
        """Merges new facts into the file; if it cannot be written, the next search measures them again."""
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
