"""Fingerprints of a checkpoint's weights, cached on disk until its files change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from paredown.compressors.original.checkpoint import shards
from paredown.compressors.tensor_files.record_names import FINGERPRINTS
from paredown.space.errors import OutputError, StudyError
from paredown.space.system.files import read_json, write_json

ALL = "*.safetensors"
"""Key of the fingerprint of all weight files together."""


class FingerprintsFile(BaseModel):
    """Content of a fingerprint file: the checkpoint, and its SHA-256 fingerprints by parameter name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str
    sha256_of: dict[str, str]


class Fingerprints:
    """Fingerprints by name, cached in memory and in a file that belongs to one state of the checkpoint's files.

    Args:
        folder: The bank's folder; the file lies in a subfolder. None caches nothing on disk.
        checkpoint: Folder of the weights; None caches nothing on disk.
    """

    def __init__(self, folder: Path | None, checkpoint: Path | None) -> None:
        self.checkpoint = checkpoint
        self.path = folder / FINGERPRINTS / f"{_files_key(checkpoint)}.json" if folder and checkpoint else None
        self._known = _read(self.path) if self.path else {}
        self._new = False

    def get(self, name: str, make: Callable[[], str]) -> str:
        """The fingerprint of a name; computed by ``make`` if unknown."""
        if name not in self._known:
            self._known[name] = make()
            self._new = True
        return self._known[name]

    def write(self) -> None:
        """Writes new fingerprints to the file. If that fails (full disk), they are recomputed next time."""
        if self.path and self._new:
            content = FingerprintsFile(checkpoint=str(self.checkpoint), sha256_of=_read(self.path) | self._known)
            try:
                write_json(self.path, content.model_dump())
            except OutputError:
                return
            self._new = False


class Digests:
    """SHA-256 of parameter values by name; equal for equal values, whatever precision they are held in.

    Args:
        parameters: Parameters by name; each is read when its digest is first requested.
        folder: The bank's folder, where fingerprints are cached.
        checkpoint: Folder of the parameters; None caches nothing on disk.
    """

    def __init__(self, parameters: Mapping[str, Tensor], folder: Path, checkpoint: Path | None) -> None:
        self.parameters = parameters
        self._fingerprints = Fingerprints(folder, checkpoint)

    @property
    def path(self) -> Path | None:
        """The fingerprint file; None if nothing is cached on disk."""
        return self._fingerprints.path

    def __getitem__(self, name: str) -> str:
        return self._fingerprints.get(name, lambda: self._digest(name))

    def write(self) -> None:
        """Writes new digests to the fingerprint file."""
        self._fingerprints.write()

    def _digest(self, name: str) -> str:
        if name not in self.parameters:
            return "none"
        return hashlib.sha256(self.parameters[name].detach().float().contiguous().numpy().data).hexdigest()


def weights_sha256(checkpoint: Path, folder: Path | None = None) -> str:
    """Fingerprint of the weight files of a model folder; reads the files only if they changed since it was cached.

    Args:
        checkpoint: The model folder.
        folder: The bank's folder, where the fingerprint is cached; None caches nothing on disk.
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
    """A key that changes whenever a weight file is written or replaced."""
    content = []
    for path in sorted(checkpoint.glob("*.safetensors")):
        found = path.stat()
        content.append([str(path.resolve()), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, str]:
    """Fingerprints in a file; empty if it is missing or damaged."""
    try:
        return read_json(path, FingerprintsFile, StudyError, "").sha256_of
    except StudyError:
        return {}
