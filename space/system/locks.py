"""Locks on folders, exclusive or shared, that end with their process."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from paredown.space.errors import OutputError, ParedownError, write_remedy

FILE = ".lock"
"""Name of the lock file in a folder."""


@contextmanager
def held(folder: Path, refusal: ParedownError) -> Iterator[None]:
    """Locks a folder for this process alone until the block ends.

    Args:
        folder: The folder; created if it is missing.
        refusal: Error to raise if another process holds the lock.

    Raises:
        ParedownError: ``refusal``, if another process holds the lock, shared or not.
        OutputError: If the folder cannot be written, or its file system has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / FILE, fallback_to_soft=False).acquire(blocking=False)
    except Timeout:
        raise refusal from None
    except OSError as error:
        raise _unusable(folder, error) from None
    with lock:
        yield


@contextmanager
def shared(folder: Path, refusal: ParedownError) -> Iterator[None]:
    """Locks a folder until the block ends; other processes may share it. A folder that is read-only needs no lock.

    The file is that of `held`, but filelock cannot share it. Its lock for readers and writers is an SQLite database,
    whose locks end when the process closes any other handle of that file.

    Args:
        folder: The folder; created if it is missing.
        refusal: Error to raise if another process holds the lock alone.

    Raises:
        ParedownError: ``refusal``, if another process holds the lock alone.
        OutputError: If the folder cannot be written, or its file system has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE).open("a")
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise _unusable(folder, error) from None
        yield  # nothing can be removed from such a folder either
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        except OSError as error:
            raise _unusable(folder, error) from None
        yield


def _unusable(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {folder}: {error.strerror}; {write_remedy(error)}")
