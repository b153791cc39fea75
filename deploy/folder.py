"""Output folders: written beside, synced, exchanged; only our own are replaced."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from paredown.space.errors import OutputError
from paredown.space.temporary import UNFINISHED, abandoned, temporary_folder

MANIFEST = "metrics.json"
"""The file that makes a folder ours: it lists the files that were written."""

OLD = "old"
"""Name, in the temporary folder, of what was in the place of the new folder, until that is there."""

AT_FDCWD, EXCHANGE = -100, 2
"""The current folder, of ``renameat2`` in ``fcntl.h``; and the flag for an exchange, which macOS's ``renamex_np`` has too."""

CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of systems and file systems that exchange nothing."""


def check_folder(out: Path) -> None:
    """Refuses a folder that holds anything that we did not write.

    Raises:
        OutputError: If it exists, is not empty and is not ours, or holds files of others beside ours.
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
            f"{out} holds {', '.join(foreign[:3])} beside what paredown wrote; move that away or choose another folder"
        )


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of ``out`` once all went well; else nothing is left of it.

    A process that is killed leaves the old folder or the new one, whole; only where the system cannot exchange two folders in one
    step may the old one have to be `put_back` first. What it leaves beside that is removed by the next one that writes there.

    Raises:
        OutputError: If the disk is full or the place cannot be written.
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
                os.rename(temporary / OLD, new)  # from here on it may be in pieces: nobody puts it back
            _sync(out.parent)
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot write {out}: {reason}; free some space or choose another folder") from None


def put_back(out: Path) -> Path:
    """The folder, which is put back if it is missing because a process was killed while it replaced it."""
    if not out.exists():
        for temporary in abandoned(out.absolute().parent, _prefix(out)):
            with suppress(OSError):  # there is none, or it cannot be moved: then the folder is missing
                os.rename(temporary / OLD, out)
                break
    return out


def exchanged(first: Path, second: Path) -> bool:
    """Whether two folders took each other's place in one step; False where the system or the file system cannot do that.

    Raises:
        OSError: If they may not be moved.
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
