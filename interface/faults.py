"""Error messages and exit codes: no command ends with a traceback."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Iterator

from paredown.space.errors import ParedownError, is_out_of_memory

BAD_INPUT, BUG = 2, 70
"""Exit codes of errors that the user can fix, and of bugs. `ParedownError` has its own codes."""

NO_MEMORY = "not enough memory; set a smaller memory in the study file, give fewer --workers, or close other programs"

SPACE = "free some space, then run the same command again: it resumes"
RIGHTS = "choose a folder that you may write to, or change its permissions"
REMEDIES = {
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), then run the same command again: it resumes",
    errno.EROFS: RIGHTS,
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "choose another path",
    errno.EISDIR: "choose another path",
    errno.ENOENT: "check the path; something may have removed it while the command ran",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "check the disk, then run the same command again: it resumes",
}
"""Remedies by errno."""

OF_SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
"""Errno of each SQLite error code."""


def code_of(fault: Exception) -> int:
    """Exit code for an exception."""
    if isinstance(fault, ParedownError):
        return fault.exit_code
    return BAD_INPUT if is_out_of_memory(fault) or error_number(fault) in REMEDIES else BUG


def lines_of(fault: Exception) -> list[str]:
    """Message for an exception, with its remedy; for a bug, the path of its traceback."""
    if isinstance(fault, ParedownError):
        return str(fault).splitlines()
    if is_out_of_memory(fault):
        return [NO_MEMORY]
    number = error_number(fault)
    if number in REMEDIES:
        names = [str(name) for each in chain(fault) if (name := getattr(each, "filename", None)) is not None]
        return [f"{f'{names[0]}: ' if names else ''}{os.strerror(number)}; {REMEDIES[number]}"]
    found = next(iter(str(fault).splitlines()), "")[:200]
    return [
        f"unexpected {type(fault).__name__}{f': {found}' if found else ''}; "
        f"this is a bug in paredown, please report it{saved(fault)}"
    ]


def chain(fault: BaseException) -> Iterator[BaseException]:
    """The exception and its chain of causes."""
    each: BaseException | None = fault
    while each is not None:
        yield each
        each = each.__cause__


def error_number(fault: BaseException) -> int:
    """Errno of an exception, even if a library wrapped it; 0 if it has none."""
    for each in chain(fault):
        if isinstance(each, OSError) and each.errno:
            return each.errno
        if isinstance(each, sqlite3.Error) and (number := OF_SQLITE.get(getattr(each, "sqlite_errorcode", 0) & 0xFF)):
            return number
        if match := re.search(r"\(os error (\d+)\)", str(each)):  # libraries written in Rust
            return int(match[1])
    return 0


def saved(fault: Exception) -> str:
    """Saves the traceback in the folder for temporary files; the words that name the file."""
    try:
        handle, path = tempfile.mkstemp(prefix="paredown-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{shlex.join(['paredown', *sys.argv[1:]])}\nPython {sys.version}\n\n")
            file.writelines(traceback.format_exception(fault))
    except OSError as error:
        return f" (its traceback could not be saved: {error.strerror})"
    return f" with {path}"
