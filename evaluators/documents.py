"""Documents that a model is measured on, split into four disjoint sets."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SHINGLE_LINES = 3
"""Lines per shingle."""

SHARED_LIMIT = 0.05
"""A document is a near-duplicate if more than this share of its shingles was seen before."""

Shares = Mapping[str, tuple[int, int]]
"""Range ``[low, high)`` of each set in percent, by hash of the document's name; the rest is for training."""

SETS: Shares = {"calibration": (0, 6), "search": (6, 14), "selection": (14, 20), "held-out": (20, 34)}
"""Split of texts that the model was partly trained on."""

OWN_SETS: Shares = {"calibration": (0, 15), "search": (15, 45), "selection": (45, 65), "held-out": (65, 100)}
"""Split of texts that the user supplies."""

_TABLES = {"site-packages", "dist-packages", "encodings", "pydoc_data", "turtledemo"}
_TESTS = {"test", "tests", "idle_test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text, and the name that decides which set it belongs to."""

    name: str
    text: str


def shingles(text: str) -> list[int]:
    """Hashes of all runs of `SHINGLE_LINES` non-blank lines, stripped of surrounding white space."""
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    return [hash(tuple(lines[i : i + SHINGLE_LINES])) for i in range(len(lines) - SHINGLE_LINES + 1)]


def share_seen(text: str, seen: set[int]) -> float:
    """Share of the text's shingles that are in ``seen``, in [0, 1]; 0 for a text without shingles."""
    own = shingles(text)
    return sum(shingle in seen for shingle in own) / len(own) if own else 0.0


def bucket(name: str) -> int:
    """Hash of the name as an integer in [0, 100); the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100


def set_of(name: str, sets: Shares) -> str:
    """Set of a document with this name: a key of ``sets``, or ``"training"``."""
    place = bucket(name)
    return next((key for key, (low, high) in sets.items() if low <= place < high), "training")


def standard_library(*, tests: bool = False, root: Path | None = None) -> list[Document]:
    """Modules of the running interpreter's standard library, sorted by name; with ``tests``, its test modules instead.

    Tables (``encodings``, ``pydoc_data``), packages that ``pip`` installed and files of less than 1000 characters are
    left out. Test modules are for training only: many distributions ship none, so no measured set may contain them.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    documents = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if _TABLES.isdisjoint(name.parts) and tests != _TESTS.isdisjoint(name.parts):
            text = path.read_text(encoding="utf-8", errors="ignore")
            if len(text) >= 1000:
                documents.append(Document(name=name.as_posix(), text=text))
    return documents


def without_near_duplicates(documents: Iterable[Document], seen: set[int] | None = None) -> Iterator[Document]:
    """The documents that are not near-duplicates of ``seen`` or of an earlier document, in order."""
    seen = set(seen or ())
    for document in documents:
        if share_seen(document.text, seen) <= SHARED_LIMIT:
            seen.update(shingles(document.text))
            yield document


def split_documents(documents: Sequence[Document], sets: Shares = SETS) -> dict[str, list[Document]]:
    """The documents by set, without near-duplicates of an earlier set or of the training part."""
    by_set: dict[str, list[Document]] = {key: [] for key in ("training", *sets)}
    for document in documents:
        by_set[set_of(document.name, sets)].append(document)
    seen = {shingle for document in by_set["training"] for shingle in shingles(document.text)}
    for key in sets:
        by_set[key] = list(without_near_duplicates(by_set[key], seen))
        seen.update(shingle for document in by_set[key] for shingle in shingles(document.text))
    return by_set
