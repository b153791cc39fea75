"""Output folders: written beside the target, synced, then swapped in; only folders that paredown wrote are replaced."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from paredown.space.errors import OutputError, write_remedy
from paredown.space.system.temporary import UNFINISHED, abandoned, temporary_folder

MANIFEST = "metrics.json"
"""The file that marks a folder as written by paredown; it lists the files that were written."""

OLD = "old"
"""Name in the temporary folder of the previous output, until the new one is in place."""

AT_FDCWD, EXCHANGE = -100, 2
"""Arguments of ``renameat2`` in ``fcntl.h``: the current folder, and the flag for an exchange.

macOS's ``renamex_np`` uses the same flag.
"""

CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Error codes of systems and file systems that cannot exchange two names."""


def check_folder(out: Path) -> None:
    """Refuses a folder that holds files that paredown did not write.

    Raises:
        OutputError: If it is a file, holds something else, or holds other files beside paredown's.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out} is a file; give a folder")
    found = {path.name for path in out.iterdir()}
    if not found:
        return
    try:
        ours = set(json.loads((out / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    if not ours or "plan.yaml" not in found:
        raise OutputError(f"{out} exists and was not written by paredown; choose another folder or remove it")
    if foreign := sorted(found - ours):
        raise OutputError(
            f"{out} holds {', '.join(foreign[:3])} beside what paredown wrote; move it away or choose another folder"
        )


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """An empty folder to write into, which replaces ``out`` on success and is removed on failure.

    A process that is killed leaves the old folder or the new one, complete. Where the system cannot exchange two
    folders in one step, the old one may first have to be restored by `put_back`. The next write to ``out`` removes any
    leftovers.

    Raises:
        OutputError: If the disk is full or the folder cannot be written.
    """
    try:
        out = put_back(out.absolute())
        check_folder(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out.parent, _prefix(out)) as temporary:
            new = temporary / "new"
            new.mkdir()
            yield new
            for path in new.iterdir():
                _sync(path)
            _sync(new)
            if not out.exists():
                os.rename(new, out)
            elif not exchanged(new, out):
                os.rename(out, temporary / OLD)
                os.rename(new, out)
                os.rename(temporary / OLD, new)  # from here on it may be removed in part and must not be put back
            _sync(out.parent)
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot write {out}: {reason}; {write_remedy(error)}") from None


def put_back(out: Path) -> Path:
    """The folder, restored first if a process was killed while replacing it."""
    if not out.exists():
        for temporary in abandoned(out.absolute().parent, _prefix(out)):
            with suppress(OSError):  # none left, or it cannot be moved: the folder stays missing
                os.rename(temporary / OLD, out)
                break
    return out


def exchanged(first: Path, second: Path) -> bool:
    """True if two folders were exchanged in one step; False if the system or the file system cannot do that.

    Raises:
        OSError: If they cannot be moved for another reason.
    """
    library = ctypes.CDLL(None, use_errno=True)
    names = [ctypes.c_char_p(os.fsencode(path)) for path in (first, second)]
    if hasattr(library, "renameat2"):  # Linux
        result = library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], ctypes.c_uint(EXCHANGE))
    elif hasattr(library, "renamex_np"):  # macOS
        result = library.renamex_np(*names, ctypes.c_uint(EXCHANGE))
    else:
        return False
    if result and (code := ctypes.get_errno()) not in CANNOT:
        raise OSError(code, os.strerror(code), str(second))
    return not result


def _prefix(out: Path) -> str:
    return f".{out.absolute().name}{UNFINISHED}"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
