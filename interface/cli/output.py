"""Results on standard output."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import paredown
from paredown.search.report.verdict import summary_lines
from paredown.space.system.paths import expanded


def print_outcome(folder: Path, *, as_json: bool) -> None:
    """Prints the outcome of a study so far.

    Raises:
        StudyError: If no trial is finished yet.
    """
    outcome, folder = paredown.status(folder), expanded(folder)
    if as_json:
        print((folder / "front.json").read_text())
    else:
        print_lines(summary_lines(outcome, folder))


def print_json(value: Any) -> None:
    """Prints a value as JSON on standard output."""
    print(json.dumps(value, indent=1, default=str))


def print_lines(lines: Iterable[str]) -> None:
    """Prints lines on standard output."""
    for line in lines:
        print(line)
