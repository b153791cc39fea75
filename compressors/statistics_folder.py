"""Statistics on disk, as `calibration` collects them; importing this imports no transformers."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from safetensors import safe_open

from paredown.space.statistics import Statistics

IN_MEMORY = 4
"""Statistics of so many matrices stay in memory, with what methods derived from them."""

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
            with safe_open(self.folder / name, "pt") as file:
                self._recent[name] = Statistics(**{key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - safe_open is no mapping
            if len(self._recent) > IN_MEMORY:
                self._recent.popitem(last=False)
        self._recent.move_to_end(name)
        found = self._recent[name]
        if module not in self.importance:
            return found
        with safe_open(self.folder / self.importance[module], "pt") as file:
            return replace(found, importance=file.get_tensor("importance"))  # what was derived from the inputs stays shared

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)
