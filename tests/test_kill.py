"""A kill before any change to a file: the same command again gives the same folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shared import ROOT
from shared.commands import environment


@pytest.mark.parametrize(
    ("step", "stride", "holds"),
    [("publish", 10, "the same folder after each"), ("database", 16, "it opens after each")],
)
def test_a_kill_makes_no_difference(step: str, stride: int, holds: str, tmp_path: Path) -> None:
    """Before some changes of the last step, and of those that make the database once the solver's plan was offered.

    `scripts/kill_everywhere` has all of them, and those of whole searches.
    """
    command = [sys.executable, ROOT / "scripts/kill_searches.py", step, tmp_path, str(stride)]
    paths = {"PYTHONPATH": str(ROOT / "tests")}
    result = subprocess.run(command, capture_output=True, text=True, env=environment() | paths, check=False)
    assert result.returncode == 0, result.stderr
    assert holds in result.stdout
