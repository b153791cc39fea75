"""The texts that a model is measured on, as documents in four disjoint sets."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SHINGLE_LINES = 3
SHARED_LIMIT = 0.05
"""A document of which more than this share of the shingles was seen before is a near-duplicate."""

Shares = Mapping[str, tuple[int, int]]
"""Sets with the percent of the documents that each takes, by hash of the name: ``[low, high)``; the rest is for training."""

SETS: Shares = {"calibration": (0, 6), "search": (6, 14), "selection": (14, 20), "held-out": (20, 34)}
"""For texts that a model was trained on in part."""

OWN_SETS: Shares = {"calibration": (0, 15), "search": (15, 45), "selection": (45, 65), "held-out": (65, 100)}
"""For texts that a person gives."""

_TABLES = {"site-packages", "dist-packages", "encodings", "pydoc_data", "turtledemo"}
_TESTS = {"test", "tests", "idle_test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text with the name that decides which set it belongs to."""

    name: str
    text: str


def shingles(text: str) -> list[int]:
    """Hashes of all runs of three non-blank lines, white space at both ends of a line ignored."""
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    return [hash(tuple(lines[i : i + SHINGLE_LINES])) for i in range(len(lines) - SHINGLE_LINES + 1)]


def share_seen(text: str, seen: set[int]) -> float:
    """Share of the text's shingles that ``seen`` holds, in [0, 1]; 0 for a text without any."""
    own = shingles(text)
    return sum(shingle in seen for shingle in own) / len(own) if own else 0.0


def bucket(name: str) -> int:
    """A number in [0, 100) that depends on nothing but the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100


def set_of(name: str, sets: Shares) -> str:
    """The set that a document of this name belongs to: a key of ``sets``, or ``"training"``."""
    place = bucket(name)
    return next((key for key, (low, high) in sets.items() if low <= place < high), "training")


def standard_library(*, tests: bool = False, root: Path | None = None) -> list[Document]:
    """The modules of the running interpreter's standard library, sorted by name; or its tests.

    Left out are tables (``encodings``, ``pydoc_data``) and what ``pip`` installed. The tests come apart, for training
    only: many distributions ship none, so no set that is measured on may hold them.
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
    """The documents, in order, that share hardly a passage with ``seen`` or with one that came before."""
    seen = set(seen or ())
    for document in documents:
        if share_seen(document.text, seen) <= SHARED_LIMIT:
            seen.update(shingles(document.text))
            yield document


def without_passages(text: str, seen: set[int]) -> str:
    """The text without the lines of any shingle that ``seen`` holds."""
    lines = text.splitlines(keepends=True)
    solid = [i for i, line in enumerate(lines) if line.strip()]
    refused: set[int] = set()
    for start, shingle in enumerate(shingles(text)):
        if shingle in seen:
            refused.update(solid[start : start + SHINGLE_LINES])
    return "".join(line for i, line in enumerate(lines) if i not in refused)


def split_documents(documents: Sequence[Document], sets: Shares = SETS) -> dict[str, list[Document]]:
    """The documents by set, near-duplicates of anything in an earlier set or in the training part left out."""
    by_set: dict[str, list[Document]] = {key: [] for key in ("training", *sets)}
    for document in documents:
        by_set[set_of(document.name, sets)].append(document)
    seen = {shingle for document in by_set["training"] for shingle in shingles(document.text)}
    for key in sets:
        by_set[key] = list(without_near_duplicates(by_set[key], seen))
        seen.update(shingle for document in by_set[key] for shingle in shingles(document.text))
    return by_set
