"""The records of a bank as files: what each says of itself, and where they lie; importing this imports no torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from paredown.space.choice import Choice
from paredown.space.site import Site

VERSION = 8
"""Raised whenever a method gives other numbers or a record another form than before, so that old records are not found again."""

ABOUT = "record"
"""Key of the metadata in which a record says what it is."""

STATISTICS, FINGERPRINTS = "statistics", "fingerprints"
"""Folders beside those of the records."""

_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{62}\.safetensors")


def record_path(folder: Path, sha256: str) -> Path:
    """Where the record of a fingerprint lies."""
    return folder / sha256[:2] / f"{sha256[2:]}.safetensors"


def is_record(folder: Path, path: Path) -> bool:
    """Whether a file lies where a bank puts a record."""
    return _NAME.fullmatch(path.relative_to(folder).as_posix()) is not None


def about_of(site: Site, choice: Choice, calibration: str) -> dict[str, Any]:
    """What a record is to say of itself.

    Args:
        site: Whose.
        choice: What was done to it.
        calibration: Fingerprint of the calibration texts, said where the choice depends on them.
    """
    return {
        "version": VERSION,
        "site": site.name,
        "kind": site.kind,
        "choice": str(choice),
        "modules": {member.module: member.shape for member in site.members},
        **({"calibration": calibration} if choice.needs else {}),
    }


def about(path: Path) -> dict[str, Any] | None:
    """What a record says of itself; None where it says nothing: it is torn, or of a version that is not read any more."""
    found = described(path)
    return found if found.get("version") == VERSION else None


def described(path: Path) -> dict[str, Any]:
    """What a safetensors file of ours says of itself; empty where the file is missing or torn."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                return {}
            found = json.loads(json.loads(file.read(length))["__metadata__"][ABOUT])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
