"""A kill before any change to a file: the same command again gives the same folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shared import ROOT
from shared.commands import environment


def test_a_kill_makes_no_difference(tmp_path: Path) -> None:
    """Before one in ten changes of the last step.

    `scripts/kill_everywhere` has all of them, and those of whole searches.
    """
    command = [sys.executable, ROOT / "tests/shared/killing.py", "publish", tmp_path, "10"]
    paths = {"PYTHONPATH": str(ROOT / "tests")}
    result = subprocess.run(command, capture_output=True, text=True, env=environment() | paths, check=False)
    assert result.returncode == 0, result.stderr
    assert "the same folder after each" in result.stdout
