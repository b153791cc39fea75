"""Locks on folders."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from paredown.space.errors import OutputError, ParedownError, StudyError
from paredown.space.system.locks import held, shared

Lock = Callable[[Path, ParedownError], AbstractContextManager[None]]
BOTH = pytest.mark.parametrize("lock", [held, shared])

HOLDER = """
import sys
from pathlib import Path
from paredown.space.errors import StudyError
from paredown.space.system import locks
with getattr(locks, sys.argv[1])(Path(sys.argv[2]), StudyError("taken")):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(lock: Lock, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock until it is killed."""
    command = [sys.executable, "-c", HOLDER, lock.__name__, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def is_free(lock: Lock, folder: Path) -> bool:
    try:
        with lock(folder, StudyError("taken")):
            return True
    except StudyError:
        return False


@BOTH
def test_only_shared_locks_go_together(lock: Lock, tmp_path: Path) -> None:
    """Between processes and within one. The death of the holder frees the folder, and so does the end of the block."""
    folder = tmp_path / "new" / "folder"
    with holder(lock, folder) as process:
        assert not is_free(held, folder)
        assert is_free(shared, folder) == (lock is shared)
        process.kill()
        process.wait()
        assert is_free(held, folder)
    with lock(folder, StudyError("taken")):
        assert not is_free(held, folder)
        assert is_free(shared, folder) == (lock is shared)
    assert is_free(held, folder)


@BOTH
def test_a_file_system_without_locks_is_refused(lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line with the remedy. No file that a killed process would leave takes the lock's place."""
    for number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):

        def refuse(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refuse)
        with (
            pytest.raises(OutputError, match=f"cannot write .*: {os.strerror(number)}; .*choose another folder"),
            lock(tmp_path, StudyError("taken")),
        ):
            pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_is_read_only_is_shared_without_a_lock(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can clean it; alone it cannot be had."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert is_free(shared, tmp_path)
    with pytest.raises(OutputError, match=os.strerror(number)):
        is_free(held, tmp_path)
