"""Files that hold a folder for a process: alone, or with others that do the same."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paredown.space.errors import OutputError, ParedownError

FILE = ".lock"


@contextmanager
def held(folder: Path, refusal: ParedownError, *, shared: bool = False) -> Iterator[None]:
    """Holds a folder, made if it is missing, for as long as the block or the process lasts.

    Args:
        folder: The folder.
        refusal: What is raised where another process holds it.
        shared: Whether others may hold it in the same way; a folder that cannot be written is then free for everyone.

    Raises:
        ParedownError: ``refusal``.
        OutputError: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE).open("a")
    except OSError as error:
        if shared and error.errno in (errno.EROFS, errno.EACCES):
            yield  # nobody can remove anything there either
            return
        raise OutputError(
            f"cannot write {folder}: {error.strerror}; free some space or choose another folder"
        ) from None
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield
