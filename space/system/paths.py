"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with a leading ``~`` expanded to the home folder, as no shell does after ``--out=`` or in a file."""
    return Path(os.path.expanduser(path))
