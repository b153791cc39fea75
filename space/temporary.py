"""Temporary folders that a lock ties to their process, so that whatever a killed one left can be recognised and removed."""

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
"""How the name of a temporary folder begins; the name of what is written stands before it where the place holds other things too."""

UNKNOWN_SECONDS = 600
"""Age from which a folder counts as abandoned on a file system that has no locks [s]."""


@contextmanager
def temporary_folder(parent: Path, prefix: str = UNFINISHED) -> Iterator[Path]:
    """An empty folder that is gone afterwards; those of killed processes, of the same prefix, go first.

    Args:
        parent: Where; it exists.
        prefix: How its name begins.

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
    """A temporary folder where the system has them; what killed processes left for the same purpose goes first."""
    with temporary_folder(Path(tempfile.gettempdir()), f"paredown-{purpose}{UNFINISHED}") as folder:
        yield folder


def remove_abandoned(parent: Path, prefix: str = "") -> None:
    """Removes the temporary folders below ``parent`` whose process is dead; what cannot be removed stays."""
    for left in abandoned(parent, prefix):
        shutil.rmtree(left, ignore_errors=True)


def abandoned(parent: Path, prefix: str = "") -> Iterator[Path]:
    """The temporary folders below ``parent`` whose process is dead; no process can take one over while it is looked at."""
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
    """A new folder, and the handle that holds its lock as long as the process lives."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        if (handle := _opened(folder)) is None:
            continue  # another process took it for abandoned: it had no lock yet
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
    """A handle of a folder of this user; None where there is none."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    if os.fstat(handle).st_uid == os.getuid():
        return handle
    os.close(handle)
    return None


def _is_abandoned(handle: int) -> bool:
    """Whether no process holds the lock of a folder, which is held then as long as the handle is open."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here: nobody can say who owns it
        return time.time() - os.fstat(handle).st_mtime > UNKNOWN_SECONDS
    return True
