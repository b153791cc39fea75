"""Safetensors files with a digest of their tensors: written atomically, checked when a process first reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from paredown.compressors.tensor_files.mapped_safetensors import read_tensors
from paredown.compressors.tensor_files.record_names import ABOUT, described
from paredown.space.errors import OutputError
from paredown.space.system.temporary import replaced_file

DIGEST = "sha256"
"""Metadata key of the digest."""

_sound: set[tuple[str, int, int, int]] = set()
"""Files that this process found undamaged: path, inode, size and modification time [ns]."""


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None, bank: Path | None = None
) -> None:
    """Writes a file that appears whole or not at all.

    Args:
        path: The file.
        tensors: Tensors by name.
        about: Metadata beside the digest.
        bank: Folder for the temporary folder, which a killed process may leave behind; the file's folder by default.

    Raises:
        OutputError: If it cannot be written; nothing is left behind.
    """
    described_as = json.dumps({**(about or {}), DIGEST: tensors_sha256(tensors)})
    try:
        with replaced_file(path, bank) as new:
            save_file(dict(tensors), new, {ABOUT: described_as})
    except (OSError, SafetensorError) as error:
        place = bank or path.parent
        raise OutputError(
            f"cannot write to the bank {place}: {error}; free some space or name another folder with --bank"
        ) from None


def checked_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file that `write_tensors` wrote, memory-mapped.

    The first call in a process reads the whole file to check its digest.

    Raises:
        SafetensorError: If the file is torn, or its tensors are not those that were written.
        OSError: If it cannot be read.
    """
    found = path.stat()
    known = (str(path), found.st_ino, found.st_size, found.st_mtime_ns)
    try:
        tensors = read_tensors(path)
        if known not in _sound and tensors_sha256(tensors) != stored_sha256(path):
            raise SafetensorError("its tensors are not those that were written")
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RuntimeError) as error:
        raise SafetensorError(f"{path} is damaged: {error}") from None
    _sound.add(known)
    return tensors


def stored_sha256(path: Path) -> str | None:
    """The digest that a file states for its tensors; None if it states none."""
    found = described(path).get(DIGEST)
    return found if isinstance(found, str) else None


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, dtypes, shapes and values; does not depend on the order of the tensors."""
    return joint_sha256(tensor_line(name, tensor) for name, tensor in tensors.items())


def tensor_line(name: str, tensor: Tensor) -> str:
    """One tensor's line in the digest of several: name, dtype, shape, and SHA-256 of its bytes."""
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return f"{name} {tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(data).hexdigest()}"


def joint_sha256(lines: Iterable[str]) -> str:
    """Digest of several tensors from their `tensor_line`, in any order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
