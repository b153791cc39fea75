"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from paredown.deploy.folder import replaced
from paredown.space.errors import OutputError
from paredown.space.system.files import write_atomically


def test_writing_leaves_the_whole_file_and_nothing_beside_it(tmp_path: Path) -> None:
    """Folders are made; text and bytes; an old file is replaced."""
    path = tmp_path / "a" / "b" / "file.txt"
    write_atomically(path, "old")
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the remedy, the old file untouched, no temporary file left."""
    path = tmp_path / "file.txt"
    write_atomically(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"paredown.space.system.temporary.os.{call}", full)
    with pytest.raises(OutputError, match="cannot write .*file.txt: No space left on device; free some space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_file_in_the_way_of_a_folder_is_refused(tmp_path: Path) -> None:
    """Not a traceback."""
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / "a" / "file.txt", "new")


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    """By the next write of the file; the old one is whole until then."""
    killed = "import os, signal, sys; os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    killed += "from pathlib import Path; from paredown.space.system.files import write_atomically; "
    killed += "write_atomically(Path(sys.argv[1]), 'new')"
    write_atomically(tmp_path / "file.txt", "old")
    subprocess.run([sys.executable, "-c", killed, tmp_path / "file.txt"], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    assert (tmp_path / "file.txt").read_text() == "old"
    write_atomically(tmp_path / "file.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl+C in the middle of it: the old file is whole, and no other is there."""
    write_atomically(tmp_path / "file.txt", "old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("paredown.space.system.temporary.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file.txt", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file.txt", "old")]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o027])
def test_written_files_and_folders_keep_to_the_umask(tmp_path: Path, mask: int) -> None:
    """A private folder stays private, a shared one shared."""
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "new" / "file", "text")
        with replaced(tmp_path / "model") as folder:
            (folder / "config.json").write_text("{}")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new" / "file", tmp_path / "new", tmp_path / "model")
    ]
    assert modes == [0o666 & ~mask, 0o777 & ~mask, 0o777 & ~mask]
