"""Fingerprints of a checkpoint's parameters, remembered for as long as its files stay as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from paredown.compressors.records import FINGERPRINTS
from paredown.space.errors import ParedownError
from paredown.space.files import write_atomically


class Digests:
    """SHA-256 of parameters' values by name: equal for equal values in whatever precision they are held.

    Args:
        parameters: By name; read when first asked for.
        folder: The bank's; fingerprints are remembered in a folder below it.
        checkpoint: Where the parameters come from; None remembers nothing.
    """

    def __init__(self, parameters: Mapping[str, Tensor], folder: Path, checkpoint: Path | None) -> None:
        self.parameters = parameters
        self.checkpoint = checkpoint
        self.path = folder / FINGERPRINTS / f"{_files_key(checkpoint)}.json" if checkpoint else None
        self._known = _read(self.path) if self.path else {}
        self._new = False

    def __getitem__(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = self._digest(name)
            self._new = True
        return self._known[name]

    def write(self) -> None:
        """Keeps what was found, unless the disk is full: then it is found again next time."""
        if self.path and self._new:
            try:
                write_atomically(self.path, json.dumps({"checkpoint": str(self.checkpoint), "sha256": self._known}, indent=0))
            except (OSError, ParedownError):
                return
            self._new = False

    def _digest(self, name: str) -> str:
        if name not in self.parameters:
            return "none"
        return hashlib.sha256(self.parameters[name].detach().float().contiguous().numpy().data).hexdigest()


def _files_key(checkpoint: Path) -> str:
    """Changes whenever a weight file is written or exchanged."""
    content = []
    for path in sorted(checkpoint.glob("*.safetensors")):
        found = path.stat()
        content.append([str(path.resolve()), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, str]:
    try:
        known: dict[str, str] = dict(json.loads(path.read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return known
