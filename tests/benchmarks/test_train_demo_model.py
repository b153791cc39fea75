"""The demo model was trained on no passage that is measured."""

from __future__ import annotations

import runpy
from collections.abc import Callable

import pytest

from paredown.evaluators.documents import SETS, share_seen, shingles, split_documents, standard_library
from shared import ROOT

Cut = Callable[[str, set[int]], str]


@pytest.fixture(scope="module")
def without_passages() -> Cut:
    cut: Cut = runpy.run_path(str(ROOT / "scripts" / "train_demo_model.py"))["without_passages"]
    return cut


def text(start: int, lines: int) -> str:
    return "".join(f"line {i}\n" for i in range(start, start + lines))


def test_the_training_part_holds_no_passage_that_is_measured(without_passages: Cut) -> None:
    """Once the passages of all measured sets are cut from it, as the demo model's training does: far under 1 %."""
    split = split_documents(standard_library())
    measured = {shingle for name in SETS for document in split[name] for shingle in shingles(document.text)}
    kept = {
        shingle for document in split["training"] for shingle in shingles(without_passages(document.text, measured))
    }
    for name in SETS:
        own = [shingle for document in split[name] for shingle in shingles(document.text)]
        assert sum(shingle in kept for shingle in own) <= 0.001 * len(own)


def test_passages_are_cut_and_the_rest_stays(without_passages: Cut) -> None:
    """Lines of a shared passage go, blank lines and all other text stay, and nothing shared is left."""
    seen = set(shingles(text(10, 5)))
    cut = without_passages(text(0, 30), seen)
    assert cut == text(0, 10) + text(15, 15)
    assert share_seen(cut, seen) == 0
    assert without_passages(text(0, 30), set()) == text(0, 30)
