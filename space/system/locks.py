"""Locks on folders, exclusive or shared, held by a process."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paredown.space.errors import OutputError, ParedownError, write_remedy

FILE = ".lock"
"""Name of the lock file in a folder."""


@contextmanager
def held(folder: Path, refusal: ParedownError, *, shared: bool = False) -> Iterator[None]:
    """Locks a folder until the block or the process ends.

    Args:
        folder: The folder; created if it is missing.
        refusal: Error to raise if another process holds the lock.
        shared: Whether other processes may hold a shared lock at the same time. A folder that cannot be written then
            needs no lock.

    Raises:
        ParedownError: ``refusal``, if another process holds the lock.
        OutputError: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE).open("a")
    except OSError as error:
        if shared and error.errno in (errno.EROFS, errno.EACCES):
            yield  # nothing can be removed from such a folder either
            return
        raise OutputError(f"cannot write {folder}: {error.strerror}; {write_remedy(error)}") from None
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield
