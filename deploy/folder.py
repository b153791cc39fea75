"""Output folders: written beside, synced, renamed; only our own are replaced."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from paredown.space.errors import OutputError

MANIFEST = "metrics.json"
"""The file that makes a folder ours: it lists the files that were written."""


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
        raise OutputError(f"{out} holds {', '.join(foreign[:3])} beside what paredown wrote; move that away or choose another folder")


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of ``out`` once all went well; else nothing is left of it.

    Raises:
        OutputError: If the disk is full or the place cannot be written.
    """
    temporary: Path | None = None
    try:
        out = out.absolute()
        check_folder(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.writing-"))
        yield temporary
        for path in temporary.iterdir():
            _sync(path)
        _sync(temporary)
        temporary.chmod(0o755)
        if out.exists():
            old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.replaced-"))
            os.rename(out, old)
            os.rename(temporary, out)
            shutil.rmtree(old)
        else:
            os.rename(temporary, out)
        _sync(out.parent)
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot write {out}: {reason}; free some space or choose another folder") from None
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
