"""Temporary folders that their process locks, so that leftovers of a killed process can be recognised and removed.

What must appear whole or not at all is written into one, and then moved.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".unfinished-"
"""Marker in the name of a temporary folder; the name of what is written may precede it."""

UNKNOWN_SECONDS = 600
"""Age above which a temporary folder counts as abandoned on a file system without locks [s]."""


@contextmanager
def temporary_folder(parent: Path, prefix: str = UNFINISHED) -> Iterator[Path]:
    """An empty folder that is removed after the block.

    Folders with the same prefix that killed processes left are removed first.

    Args:
        parent: Existing folder to create it in.
        prefix: Start of its name.

    Raises:
        OSError: If ``parent`` cannot be written.
    """
    remove_abandoned(parent, prefix)
    folder, handle = _owned(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


@contextmanager
def system_folder(purpose: str) -> Iterator[Path]:
    """A temporary folder in the system's place for them; leftovers of killed processes with this purpose go first."""
    with temporary_folder(Path(tempfile.gettempdir()), f"paredown-{purpose}{UNFINISHED}") as folder:
        yield folder


@contextmanager
def replaced_file(path: Path, parent: Path | None = None, prefix: str = UNFINISHED) -> Iterator[Path]:
    """Where to write a new file, which replaces ``path`` after the block.

    The new file is synced before it is renamed: a reader, or a killed process, leaves the whole old file or the whole
    new one. If the block fails, the old file stays.

    Args:
        path: The file; its folder is created.
        parent: Existing folder for the temporary folder; the file's by default.
        prefix: Start of the temporary folder's name.

    Raises:
        OSError: If a folder cannot be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(parent or path.parent, prefix) as folder:
        new = folder / path.name
        yield new
        with new.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(new, path)


def remove_abandoned(parent: Path, prefix: str = "") -> None:
    """Removes the temporary folders in ``parent`` whose process is dead; skips what cannot be removed."""
    for left in abandoned(parent, prefix):
        shutil.rmtree(left, ignore_errors=True)


def abandoned(parent: Path, prefix: str = "") -> Iterator[Path]:
    """Temporary folders in ``parent`` whose process is dead; each stays locked until the next one is asked for."""
    try:
        names = sorted(name for name in os.listdir(parent) if name.startswith(prefix) and UNFINISHED in name)
    except OSError:
        return
    for folder in (Path(parent, name) for name in names):
        if (handle := _opened(folder)) is None:
            continue
        try:
            if _is_abandoned(handle):
                yield folder
        finally:
            os.close(handle)


def _owned(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder, and the handle that holds its lock while the process lives."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        if (handle := _opened(folder)) is None:
            continue  # another process removed it as abandoned, before it was locked
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        except OSError:  # a file system without locks
            return folder, handle
        with suppress(FileNotFoundError):
            if os.stat(folder).st_ino == os.fstat(handle).st_ino:
                return folder, handle
        os.close(handle)


def _opened(folder: Path) -> int | None:
    """A handle of a folder; None if it does not exist or belongs to another user."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    if os.fstat(handle).st_uid == os.getuid():
        return handle
    os.close(handle)
    return None


def _is_abandoned(handle: int) -> bool:
    """Whether no process holds the lock of a folder; if so, this handle now holds it until it is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # without locks the owner is unknown
        return time.time() - os.fstat(handle).st_mtime > UNKNOWN_SECONDS
    return True
