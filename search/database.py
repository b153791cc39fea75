"""The file that trials are kept in, looked at before it is trusted."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from paredown.search.outcome import FILE
from paredown.space.errors import StudyError


def check_database(path: Path) -> None:
    """Lets a database pass that is whole, or not there yet.

    Raises:
        StudyError: If it is damaged.
    """
    if not path.is_file():
        return
    if path.stat().st_size == 0:
        if (path.parent / FILE).is_file():  # else a search was killed that had just made it
            raise damaged(path, "it is empty")
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.OperationalError:  # it cannot be opened or is locked: whoever needs it says so
        return
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from None
    if found != "ok":
        raise damaged(path, found.splitlines()[-1])


def damaged(path: Path, reason: str) -> StudyError:
    """What is said of a database that cannot be used any more."""
    return StudyError(
        f"{path} is damaged ({reason}); move it elsewhere and run the same command again: "
        "it measures the trials again, and finds compressed layers and sensitivities as they are"
    )
