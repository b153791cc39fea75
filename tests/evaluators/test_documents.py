"""Texts in disjoint sets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import pytest

from paredown.evaluators.documents import (
    SETS,
    SHARED_LIMIT,
    Document,
    bucket,
    set_of,
    share_seen,
    shingles,
    split_documents,
    standard_library,
    without_near_duplicates,
)

Split = Mapping[str, list[Document]]


@pytest.fixture(scope="module")
def split() -> Split:
    return split_documents(standard_library())


def text(start: int, lines: int) -> str:
    return "".join(f"line {i}\n" for i in range(start, start + lines))


def test_sets_are_disjoint_and_none_is_empty(split: Split) -> None:
    """No document is in two sets, each in the set of its name, and every set has text to measure on."""
    assert set(split) == {"training", *SETS}
    for one, other in combinations(split, 2):
        assert {d.name for d in split[one]}.isdisjoint(d.name for d in split[other])
    for name, documents in split.items():
        assert all(set_of(document.name, SETS) == name for document in documents)
        assert len(documents) >= 10
        assert sum(len(document.text) for document in documents) > 100_000
    edges = sorted(edge for low, high in SETS.values() for edge in (low, high))
    assert edges[1:-1:2] == edges[2:-1:2]


def test_no_measured_set_holds_what_another_has(split: Split) -> None:
    """No near-duplicate of any document in another set, and under 1 % of the shingles of any set in those before it."""
    seen: set[int] = set()
    training = {shingle for document in split["training"] for shingle in shingles(document.text)}
    for name in SETS:
        assert all(share_seen(document.text, training | seen) <= SHARED_LIMIT for document in split[name])
        own = [shingle for document in split[name] for shingle in shingles(document.text)]
        assert sum(shingle in seen for shingle in own) < 0.01 * len(own)
        seen.update(own)


def test_the_split_is_the_same_in_every_process(split: Split, tmp_path: Path) -> None:
    """Whatever the seed of Python's hashes."""
    program = (
        "from paredown.evaluators.documents import *\n"
        "print([(k, d.name) for k, v in split_documents(standard_library()).items() for d in v])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str(
        [(name, document.name) for name, documents in split.items() for document in documents]
    )


def test_the_place_of_a_name_is_fixed() -> None:
    """A model was trained on one side of this split: moving a name would leak."""
    assert [bucket(name) for name in ("abc.py", "json/decoder.py", "typing.py")] == [45, 93, 23]
    assert {set_of(f"{i}.py", SETS) for i in range(500)} == {"training", *SETS}


def test_near_duplicates_go_and_the_first_stays() -> None:
    """A copy with a changed line is one; a document with one shared passage in a hundred is none."""
    first, copy = Document(name="a", text=text(0, 200)), Document(name="b", text=text(0, 199) + "changed\n")
    little = Document(name="c", text=text(0, 5) + text(1000, 200))
    assert [d.name for d in without_near_duplicates([first, copy, little])] == ["a", "c"]
    assert list(without_near_duplicates([first], seen=set(shingles(copy.text)))) == []


def test_white_space_does_not_hide_a_copy() -> None:
    """Indentation and blank lines make no other text; short texts have no shingles."""
    assert shingles("a\n\n  b\nc  \n") == shingles("a\nb\nc")
    assert shingles("a\nb") == []
    assert share_seen("", set()) == 0.0
