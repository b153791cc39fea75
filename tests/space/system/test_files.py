"""YAML that people write."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from paredown.deploy.folder import replaced
from paredown.space.errors import OutputError, PlanError, StudyError
from paredown.space.system.files import LIMIT_BYTES, read_yaml, write_atomically


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=0)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    inner: Inner
    items: list[Inner] = []
    table: dict[str, Inner] = {}


def read(folder: Path, text: str) -> Outer:
    path = folder / "file.yaml"
    path.write_text(text)
    return read_yaml(path, Outer, StudyError)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(StudyError, match="file.yaml") as caught:
        read(folder, text)
    return str(caught.value).replace(f"{folder}/", "").split("\n")


def test_a_good_file_is_its_value(tmp_path: Path) -> None:
    """Nested values included."""
    value = read(tmp_path, "name: a\ninner: {size: 1}\nitems:\n- size: 2\ntable:\n  x: {size: 3}\n")
    assert value == Outer(name="a", inner=Inner(size=1), items=[Inner(size=2)], table={"x": Inner(size=3)})


def test_all_faults_are_reported_at_once_each_with_its_line(tmp_path: Path) -> None:
    """Unknown keys, wrong types, duplicates, values out of range and missing keys, in one go."""
    text = "nmae: a\ninner:\n  size: -1\n  colour: red\nitems:\n- size: 2\n- size: two\n"
    text += "table:\n  x: {size: 1}\n  x: {size: 2}\n"
    found = faults(tmp_path, text)
    assert sorted(found) == sorted(
        [
            "file.yaml:10: duplicate key 'x'; remove one",
            "file.yaml:1: name: Field required",
            "file.yaml:1: nmae: unknown key; remove it or correct its spelling",
            "file.yaml:3: inner.size: Input should be greater than or equal to 0",
            "file.yaml:4: inner.colour: unknown key; remove it or correct its spelling",
            "file.yaml:7: items.1.size: Input should be a valid integer, unable to parse string as an integer",
        ]
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: &a x\ninner: {size: 1}\nitems: [*a]\n", r"file.yaml:3: aliases \(\*name\) are not supported"),
        ("a: &a [x]\nb: &b [*a, *a]\n", "file.yaml:2: aliases"),
        ("name: [\n", "file.yaml:2: invalid YAML"),
        (
            "name: !!python/object/apply:os.system [ls]\n",
            "file.yaml:1: invalid YAML: could not determine a constructor",
        ),
        ("name: a\x00b\n", "file.yaml.*invalid YAML"),
        ("? [a, b]\n: 1\n", "file.yaml:1: invalid YAML: found unhashable key"),
        ("? {a: b}\n: 1\n", "file.yaml:1: invalid YAML: found unhashable key"),
        ("name: 2024-13-45\n", "file.yaml: month must be in 1..12; write such a value in quotes"),
        ("", "file.yaml is empty"),
        ("# nothing\n", "file.yaml is empty"),
        ("- 1\n", "file.yaml:1: file: Input should be a valid dictionary"),
        ("[" * 5000 + "\n", "file.yaml: nested too deeply"),
        ("a: 1\n---\nb: 2\n", "file.yaml:2: invalid YAML: but found another document"),
    ],
    ids=lambda text: text[:12],
)
def test_what_cannot_be_read_is_one_line(text: str, fault: str, tmp_path: Path) -> None:
    """Bombs, code, binary, odd keys, nothing: refused without a traceback."""
    with pytest.raises(StudyError, match=fault) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value) or "aliases" not in fault


def test_a_file_that_is_not_there_not_text_or_too_large_is_refused(tmp_path: Path) -> None:
    """A sparse file shows that nothing of it is read."""
    path = tmp_path / "file.yaml"
    with pytest.raises(PlanError, match="file.yaml cannot be read .*give a YAML file"):
        read_yaml(path, Outer, PlanError)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="file.yaml cannot be read"):
        read_yaml(path, Outer, PlanError)
    with pytest.raises(PlanError, match="cannot be read"):
        read_yaml(tmp_path, Outer, PlanError)
    with path.open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    with pytest.raises(PlanError, match="larger than 8 MiB, the limit for such a YAML file"):
        read_yaml(path, Outer, PlanError)


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
