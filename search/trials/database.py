"""Integrity check of the trial database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from paredown.search.outcome.front_file import FILE, stored_outcome
from paredown.space.errors import StudyError


def check_database(path: Path) -> None:
    """Checks that a trial database is intact; a missing one passes.

    Raises:
        StudyError: If the database is damaged.
    """
    if not path.is_file():
        return
    if path.stat().st_size == 0:
        before = stored_outcome(path.parent)
        if before.trials.measured if before else (path.parent / FILE).is_file():
            raise damaged(path, "it is empty")  # otherwise a search was killed right after it created the file
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.OperationalError:  # cannot be opened, or locked: its users report that
        return
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from None
    if found != "ok":
        raise damaged(path, found.splitlines()[-1])


def damaged(path: Path, reason: str) -> StudyError:
    """The error for a trial database that cannot be used, with its remedy."""
    return StudyError(
        f"{path} is damaged ({reason}); move it elsewhere and run the same command again: "
        "it measures the trials again and reuses compressed layers and sensitivities"
    )


def database_url(path: Path) -> str:
    """Optuna's URL of a SQLite file; escapes ``?``, ``#`` and ``%``, and braces, which Optuna would interpolate."""
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    return url.replace("{", "%7B").replace("}", "%7D")
