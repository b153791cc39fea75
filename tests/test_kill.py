"""A kill before any change to a file: the same command again gives the same folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment


@pytest.mark.parametrize("arguments", [("publish", 4), ("search", 0, 1)], ids=["publish", "search"])
def test_a_kill_makes_no_difference(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Before writes of the last step; among the finalists of a search, of whose measurements one at most is repeated."""
    kind, *kills = map(str, arguments)
    command = [sys.executable, Path(__file__).with_name("killing.py"), kind, tmp_path, *kills]
    paths = {"PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment() | paths, check=False)
    assert result.returncode == 0, result.stderr
    assert "the same folder after each" in result.stdout
