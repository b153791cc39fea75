"""Temporary folders, and what killed processes leave of them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paredown.space.system.temporary import UNKNOWN_SECONDS, abandoned, replaced_file, temporary_folder

OWNER = """
import sys
from pathlib import Path
from paredown.space.system.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path) -> None:
    """At once, however young it is; the folder of a live process stays, and so does what others named otherwise."""
    (tmp_path / "unfinished-mine").mkdir()
    (tmp_path / ".unfinished-file").write_text("mine")
    (tmp_path / ".unfinished-link").symlink_to(tmp_path / "unfinished-mine")
    strangers = set(tmp_path.iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        owned = Path(owner.stdout.readline().strip())
        assert list(abandoned(tmp_path)) == []
        with temporary_folder(tmp_path) as own:
            assert (owned / "file").is_file()
            assert list(abandoned(tmp_path)) == []
        assert not own.exists()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert list(abandoned(tmp_path)) == [owned]
        with temporary_folder(tmp_path, ".other-"):
            assert owned.is_dir()
        with temporary_folder(tmp_path):
            assert not owned.exists()
    assert set(tmp_path.iterdir()) == strangers


def test_without_locks_age_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has none nobody can say whose a folder is."""

    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(fcntl, "flock", refuse)
    old = tmp_path / ".unfinished-old"
    old.mkdir()
    os.utime(old, (time.time() - UNKNOWN_SECONDS - 5,) * 2)
    with temporary_folder(tmp_path) as first, temporary_folder(tmp_path) as second:
        assert set(tmp_path.iterdir()) == {first, second}


def test_a_folder_that_is_taken_for_abandoned_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a folder and its lock another process may look at it, and remove it."""
    lock, taken = fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].rmdir()
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with temporary_folder(tmp_path) as folder:
        assert taken
        assert folder.is_dir()
        assert list(abandoned(tmp_path)) == []


def test_a_file_is_replaced_only_by_a_finished_one(tmp_path: Path) -> None:
    """Written elsewhere on the same disk, if told so; an error in between leaves the old file and nothing beside it."""
    path, place = tmp_path / "a" / "file.txt", tmp_path / "place"
    place.mkdir()
    with replaced_file(path, place) as new:
        assert new.parent.parent == place
        new.write_text("old")
        assert not path.exists()
    with pytest.raises(ValueError, match="stopped"), replaced_file(path) as new:
        new.write_text("half")
        raise ValueError("stopped")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path] and not list(place.iterdir())
