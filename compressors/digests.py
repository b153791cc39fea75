"""Fingerprints of a checkpoint's weights, remembered for as long as its files stay as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from paredown.compressors.checkpoint import shards
from paredown.compressors.records import FINGERPRINTS
from paredown.space.errors import OutputError, StudyError
from paredown.space.files import read_json, write_json

ALL = "*.safetensors"
"""Name under which the fingerprint of all weight files lies."""


class FingerprintsFile(BaseModel):
    """What a file of fingerprints holds: which checkpoint they are of, and the fingerprints by name of the parameter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str
    sha256_of: dict[str, str]


class Fingerprints:
    """Fingerprints by name, in memory and in a file that belongs to one state of the checkpoint's files.

    Args:
        folder: The bank's; the file lies in a folder below it. None remembers nothing.
        checkpoint: Where the weights come from; None likewise.
    """

    def __init__(self, folder: Path | None, checkpoint: Path | None) -> None:
        self.checkpoint = checkpoint
        self.path = folder / FINGERPRINTS / f"{_files_key(checkpoint)}.json" if folder and checkpoint else None
        self._known = _read(self.path) if self.path else {}
        self._new = False

    def get(self, name: str, make: Callable[[], str]) -> str:
        """The fingerprint of a name, made now if it is not known."""
        if name not in self._known:
            self._known[name] = make()
            self._new = True
        return self._known[name]

    def write(self) -> None:
        """Keeps what was made, unless the disk is full: then it is made again next time."""
        if self.path and self._new:
            content = FingerprintsFile(checkpoint=str(self.checkpoint), sha256_of=_read(self.path) | self._known)
            try:
                write_json(self.path, content.model_dump())
            except OutputError:
                return
            self._new = False


class Digests:
    """SHA-256 of parameters' values by name: equal for equal values in whatever precision they are held.

    Args:
        parameters: By name; read when first asked for.
        folder: The bank's, where fingerprints are remembered.
        checkpoint: Where the parameters come from; None remembers nothing.
    """

    def __init__(self, parameters: Mapping[str, Tensor], folder: Path, checkpoint: Path | None) -> None:
        self.parameters = parameters
        self._fingerprints = Fingerprints(folder, checkpoint)

    @property
    def path(self) -> Path | None:
        """The file in which they are remembered."""
        return self._fingerprints.path

    def __getitem__(self, name: str) -> str:
        return self._fingerprints.get(name, lambda: self._digest(name))

    def write(self) -> None:
        """Keeps what was found."""
        self._fingerprints.write()

    def _digest(self, name: str) -> str:
        if name not in self.parameters:
            return "none"
        return hashlib.sha256(self.parameters[name].detach().float().contiguous().numpy().data).hexdigest()


def weights_sha256(checkpoint: Path, folder: Path | None = None) -> str:
    """Fingerprint of the weight files of a model folder; reads them, unless the files are those of which it is remembered.

    Args:
        checkpoint: The model folder.
        folder: The bank's, where it is remembered; None remembers nothing.
    """
    fingerprints = Fingerprints(folder, checkpoint)
    found = fingerprints.get(ALL, lambda: _files_sha256(checkpoint))
    fingerprints.write()
    return found


def _files_sha256(checkpoint: Path) -> str:
    digest = hashlib.sha256()
    for path in shards(checkpoint):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _files_key(checkpoint: Path) -> str:
    """Changes whenever a weight file is written or exchanged."""
    content = []
    for path in sorted(checkpoint.glob("*.safetensors")):
        found = path.stat()
        content.append([str(path.resolve()), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, str]:
    """What a file holds; nothing where it is missing or damaged."""
    try:
        return read_json(path, FingerprintsFile, StudyError, "").sha256_of
    except StudyError:
        return {}
