"""Where texts come from."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from paredown.evaluators.documents import OWN_SETS, Document
from paredown.evaluators.sources import END_OF_TEXT, PASSAGE_CHARACTERS, document_sets
from paredown.space.errors import StudyError
from shared import toys


def everything(sets: dict[str, list[Document]]) -> list[str]:
    return sorted(document.text for documents in sets.values() for document in documents)


def test_a_file_is_cut_at_the_end_of_each_text(tmp_path: Path) -> None:
    texts = toys.passages(40)
    toys.write_text(tmp_path / "a.txt", [*texts, "  \n"])
    assert everything(document_sets([str(tmp_path / "a.txt")])) == sorted(texts)


def test_a_file_without_such_marks_is_cut_at_blank_lines(tmp_path: Path) -> None:
    """Into passages of about two thousand characters; nothing is lost."""
    paragraphs = [f"{i} {text}\n{text}" for i, text in enumerate(toys.passages(50, length=300))]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    found = everything(document_sets([str(tmp_path / "a.txt")]))
    assert sorted(p for text in found for p in text.split("\n\n")) == sorted(paragraphs)
    assert all(len(text) < PASSAGE_CHARACTERS + 700 for text in found)
    assert len(found) > 10


def test_the_sets_are_disjoint_and_none_is_empty(tmp_path: Path) -> None:
    sets = document_sets([str(toys.write_text(tmp_path / "a.txt", toys.passages(200)))])
    assert sets.pop("training") == []
    assert set(sets) == set(OWN_SETS)
    assert all(sets.values())
    for one, other in combinations(sets.values(), 2):
        assert {d.text for d in one}.isdisjoint(d.text for d in other)


def test_a_text_is_in_the_same_set_wherever_its_file_lies(tmp_path: Path) -> None:
    """A folder of files is read as their texts; other suffixes are left out."""
    texts = toys.passages(60)
    whole = document_sets([str(toys.write_text(tmp_path / "a.txt", texts))])
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    toys.write_text(tmp_path / "folder" / "deep" / "b.md", texts[:30])
    toys.write_text(tmp_path / "folder" / "c.txt", texts[30:])
    (tmp_path / "folder" / "picture.png").write_bytes(b"\x89PNG")
    parted = document_sets([str(tmp_path / "folder")])
    for name in OWN_SETS:
        assert {d.text for d in whole[name]} == {d.text for d in parted[name]}


def test_the_same_text_twice_is_measured_in_one_set_only(tmp_path: Path) -> None:
    texts = ["\n".join(text[i : i + 30] for i in range(0, 150, 30)) for text in toys.passages(30)]
    sets = document_sets([str(toys.write_text(tmp_path / "a.txt", texts * 2))])
    assert everything(sets) == sorted(texts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text(" \n"), "is empty; give a file with text"),
        (lambda path: path.mkdir(), r"holds no text files \(.*\.txt.*\); give a folder that does"),
        (lambda path: None, r"cannot be read \(No such file or directory\); give a text file"),
    ],
)
def test_what_holds_no_text_is_refused(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "data")  # type: ignore[operator]  # a function of a path
    with pytest.raises(StudyError, match=message):
        document_sets([str(tmp_path / "data")])


def test_only_marks_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(END_OF_TEXT * 3)
    assert everything(document_sets([str(tmp_path / "a.txt")])) == []
