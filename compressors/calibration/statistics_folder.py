"""Statistics on disk, as collected by `calibration`; importing this imports no transformers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from torch import Tensor

from paredown.compressors.tensor_files.tensor_file import checked_tensors
from paredown.space.errors import DamagedError
from paredown.space.statistics import Statistics
from paredown.space.system.files import read_json

IN_MEMORY = 2
"""Number of files kept in memory, with what methods derived from them.

An attention or a feed-forward network reads two."""

INDEX, IMPORTANCE = "index.json", "importance.json"
"""Index files of `collect` and of `collect_importance`; each is written last, when all files that it lists exist."""

MOST_DAMAGED = 8
"""Number of damaged files in one run after which it gives up."""

L = TypeVar("L", bound=BaseModel)
T = TypeVar("T")


class ImportanceFile(BaseModel):
    """Content of `IMPORTANCE`: file names by module name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: dict[str, str] = Field(default_factory=dict)


class IndexFile(ImportanceFile):
    """Content of `INDEX`: the files, and the angular distance between input and output of each block."""

    distances: list[float]


def again_if_damaged(call: Callable[[], T], say: Callable[[str], None]) -> T:
    """Result of a call that is repeated if it finds damaged statistics; the repeated call collects them again.

    Args:
        call: Function that may raise `DamagedError` and can be repeated.
        say: Called with a line for each damaged file.
    """
    for _ in range(MOST_DAMAGED):
        try:
            return call()
        except DamagedError as damage:
            say(str(damage))
    return call()


class StatisticsFolder(Mapping[str, Statistics]):
    """Statistics on disk, by module name; matrices that read the same inputs share a file.

    Args:
        folder: Folder that `collect` wrote.

    Raises:
        DamagedError: If an index is damaged, or a file when it is read. The index is removed, so that the next
            `collect` rewrites both.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = self._listed(INDEX, IndexFile)
        self.files, self.distances = index.files, index.distances
        self.importance = self._listed(IMPORTANCE, ImportanceFile).files if (folder / IMPORTANCE).is_file() else {}
        self._recent: OrderedDict[str, Statistics] = OrderedDict()

    def __getitem__(self, module: str) -> Statistics:
        name = self.files[module]
        if name not in self._recent:
            found: dict[str, Any] = {**self._tensors(name, INDEX)}
            self._recent[name] = Statistics(**found)
            if len(self._recent) > IN_MEMORY:
                self._recent.popitem(last=False)
        self._recent.move_to_end(name)
        known = self._recent[name]
        if module not in self.importance:
            return known
        importance = self._tensors(self.importance[module], IMPORTANCE)["importance"]
        return replace(known, importance=importance)  # what was derived from the inputs stays shared

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def _listed(self, name: str, kind: type[L]) -> L:
        try:
            return read_json(
                self.folder / name,
                kind,
                DamagedError,
                "it was removed, so the same command collects statistics again",
            )
        except DamagedError:
            (self.folder / name).unlink(missing_ok=True)
            raise

    def _tensors(self, name: str, listed: str) -> dict[str, Tensor]:
        try:
            return checked_tensors(self.folder / name)
        except (SafetensorError, FileNotFoundError) as error:  # running out of memory or file handles is not damage
            (self.folder / listed).unlink(missing_ok=True)
            reason = str(error).removeprefix(f"{self.folder / name} is damaged: ")
            raise DamagedError(
                f"{self.folder / name} is damaged ({reason}); its index was removed, so the same command collects "
                "statistics again"
            ) from None
