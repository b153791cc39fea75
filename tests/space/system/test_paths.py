"""Paths as people write them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import paredown
from paredown.compressors.original.checkpoint import resolve
from paredown.space.errors import CheckpointError
from paredown.space.study_file import StudyFile
from shared import toys
from shared.commands import TOKENS, call


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of this test alone; the current folder is another."""
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def test_a_tilde_is_the_home_folder(
    home: Path, pico: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In study files and in flags; nothing is made in a folder that is called ~."""
    shutil.copytree(pico("llama"), home / "m")
    toys.write_text(home / "text.txt")
    (home / "study.yaml").write_text(f"model: ~/m\ndata: ~/text.txt\nlatency: ~/table.json\n{TOKENS}\n")
    study = StudyFile.read(home / "study.yaml")
    assert (study.model, study.data, study.latency) == (
        str(home / "m"),
        [str(home / "text.txt")],
        str(home / "table.json"),
    )
    assert call(monkeypatch, "inspect", "~/m") == 0
    flags = ["--latency", "off", "--budget", "1%", "--out=~/out", "--bank=~/bank"]
    assert call(monkeypatch, "search", "~/study.yaml", "--model=~/m", "--data=~/text.txt", *flags) == 3
    assert f"it was saved to {home / 'out' / 'best' / 'plan.yaml'}" in capsys.readouterr().err
    assert paredown.validate("~/out/best/plan.yaml", "~/m")
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("name", ["~/missing", "~nobody-of-that-name/m"])
def test_a_path_in_a_home_folder_is_never_asked_of_the_hub(home: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="no model folder .*; give a folder with config.json"):
        resolve(name)
