"""Text sources: the standard library, files, folders, and data sets of the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from paredown.evaluators.documents import OWN_SETS, SETS, Document, split_documents, standard_library
from paredown.space.errors import StudyError
from paredown.space.system.paths import expanded

END_OF_TEXT = "<|endoftext|>"
"""Separator of documents within a text file."""

PASSAGE_CHARACTERS = 2000
"""Characters after which a passage ends at the next blank line; at twice as many it ends anywhere."""

SUFFIXES = {".txt", ".md", ".py", ".rst"}
"""Suffixes of the files that are read from a folder."""


def document_sets(data: Sequence[str]) -> dict[str, list[Document]]:
    """The documents of a study in four disjoint sets, without near-duplicates.

    Args:
        data: ``stdlib``, text files, folders of text files, or ``hub:NAME[:CONFIG[:SPLIT]]``.

    Raises:
        StudyError: If a source is missing or holds no text.
    """
    if list(data) == ["stdlib"]:
        return split_documents(standard_library(), SETS)
    documents = [document for source in data for document in _documents(source)]
    return split_documents(documents, OWN_SETS)


def _documents(source: str) -> Iterator[Document]:
    if source == "stdlib":
        yield from standard_library()
    elif source.startswith("hub:"):
        yield from _named("\n\n".join(_hub_rows(source)))
    else:
        path = expanded(source)
        files = sorted(f for f in path.rglob("*") if f.suffix in SUFFIXES and f.is_file()) if path.is_dir() else [path]
        if not files:
            raise StudyError(f"{source} holds no text files ({', '.join(sorted(SUFFIXES))}); give a folder that does")
        for file in files:
            try:
                text = file.read_text(encoding="utf-8", errors="ignore")
            except (OSError, ValueError) as error:  # a name may hold what no path can
                reason = getattr(error, "strerror", None) or error
                raise StudyError(
                    f"data {file} cannot be read ({reason}); give a text file, a folder, hub:NAME or stdlib"
                ) from None
            if not text.strip() and path.is_dir():
                continue
            if not text.strip():
                raise StudyError(f"data {file} is empty; give a file with text")
            yield from _named(text)


def _named(text: str) -> Iterator[Document]:
    """Documents named by a hash of their content, so that they fall into the same set wherever the file lies."""
    parts = text.split(END_OF_TEXT) if END_OF_TEXT in text else _passages(text)
    for part in parts:
        if stripped := part.strip():
            yield Document(name=hashlib.sha256(stripped.encode()).hexdigest()[:16], text=stripped)


def _passages(text: str) -> Iterator[str]:
    """Passages of about `PASSAGE_CHARACTERS` characters, cut at blank lines where possible."""
    passage: list[str] = []
    length = 0
    for line in text.splitlines(keepends=True):
        passage.append(line)
        length += len(line)
        if length >= PASSAGE_CHARACTERS and (not line.strip() or length >= 2 * PASSAGE_CHARACTERS):
            yield "".join(passage)
            passage, length = [], 0
    yield "".join(passage)


def _hub_rows(source: str) -> Iterator[str]:
    from datasets import load_dataset

    _, name, *rest = source.split(":")
    config, split = (*rest, None, None)[:2]
    try:
        rows = load_dataset(name, config or None, split=split or "train")
    except Exception as error:  # the hub raises many unrelated types: offline, gated, unknown, renamed
        raise StudyError(
            f"{source} cannot be loaded from the hub ({str(error).strip().splitlines()[0]}); "
            "download it and give the file"
        ) from None
    column = (
        "text"
        if "text" in rows.column_names
        else next((c for c in rows.column_names if isinstance(rows[0][c], str)), None)
    )
    if column is None:
        raise StudyError(f"{source} has no text column; its columns are {', '.join(rows.column_names)}")
    yield from (str(value) for value in rows[column])
