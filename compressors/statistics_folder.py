"""Statistics on disk, as `calibration` collects them; importing this imports no transformers."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from paredown.compressors.mapped import read_tensors
from paredown.space.statistics import Statistics

IN_MEMORY = 2
"""Files that stay in memory, with what methods derived from them: an attention or a feed-forward network reads two."""

IMPORTANCE = "importance.json"
"""Names the files of `collect_importance`, by name of the module."""


class StatisticsFolder(Mapping[str, Statistics]):
    """Statistics on disk, by name of the module; matrices that read the same inputs share a file.

    Args:
        folder: As `collect` wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = json.loads((folder / "index.json").read_text())
        self.files: dict[str, str] = index["files"]
        self.distances: list[float] = index["distances"]
        listed = folder / IMPORTANCE
        self.importance: dict[str, str] = json.loads(listed.read_text()) if listed.is_file() else {}
        self._recent: OrderedDict[str, Statistics] = OrderedDict()

    def __getitem__(self, module: str) -> Statistics:
        name = self.files[module]
        if name not in self._recent:
            found: dict[str, Any] = {**read_tensors(self.folder / name)}
            self._recent[name] = Statistics(**found)
            if len(self._recent) > IN_MEMORY:
                self._recent.popitem(last=False)
        self._recent.move_to_end(name)
        known = self._recent[name]
        if module not in self.importance:
            return known
        importance = read_tensors(self.folder / self.importance[module])["importance"]
        return replace(known, importance=importance)  # what was derived from the inputs stays shared

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)
