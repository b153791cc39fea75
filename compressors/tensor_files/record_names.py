"""Record files of a bank: their metadata and paths; importing this imports no torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from paredown.space.choice import Choice
from paredown.space.site import Site
from paredown.space.system.registry import extensions

VERSION = 9
"""Version of the records.

Raised whenever a method's numbers or the form of a record change, so that old records are no longer found."""

ABOUT = "record"
"""Metadata key under which a record describes itself."""

STATISTICS, FINGERPRINTS = "statistics", "fingerprints"
"""Folders of a bank beside those of the records."""

_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{62}\.safetensors")


def record_path(folder: Path, sha256: str) -> Path:
    """Path of the record with a fingerprint."""
    return folder / sha256[:2] / f"{sha256[2:]}.safetensors"


def is_record(folder: Path, path: Path) -> bool:
    """Whether a path is one where a bank puts records."""
    return _NAME.fullmatch(path.relative_to(folder).as_posix()) is not None


def about_of(site: Site, choice: Choice, calibration: str) -> dict[str, Any]:
    """Metadata in which a record describes itself; names the distributions that offer its method or algorithm.

    Args:
        site: The site.
        choice: The choice that the site is stored under.
        calibration: Fingerprint of the calibration texts; included only if the choice depends on them.
    """
    offered = offered_by(choice)
    return {
        "version": VERSION,
        "site": site.name,
        "kind": site.kind,
        "choice": str(choice),
        "modules": {member.module: member.shape for member in site.members},
        **({"calibration": calibration} if choice.needs else {}),
        **({"extensions": offered} if offered else {}),
    }


def offered_by(choice: Choice) -> dict[str, str]:
    """Versions of the distributions that offer the method, algorithm or criterion of a choice; empty for our own."""
    words = {word for part in str(choice).split() for word in part.split("=")}
    return extensions({"paredown.methods", "paredown.roundings", "paredown.criteria"}, words)


def about(path: Path) -> dict[str, Any] | None:
    """Metadata of a record; None if the record is torn or of a version that is no longer read."""
    found = described(path)
    return found if found.get("version") == VERSION else None


def described(path: Path) -> dict[str, Any]:
    """Metadata of a safetensors file that paredown wrote; empty if the file is missing or torn."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                return {}
            found = json.loads(json.loads(file.read(length))["__metadata__"][ABOUT])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
