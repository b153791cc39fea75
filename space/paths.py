"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with its leading ``~`` replaced by the home folder: no shell does that behind ``--out=``, nor in a file."""
    return Path(os.path.expanduser(path))
