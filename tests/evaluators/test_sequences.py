"""Documents as sequences of tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.evaluators.documents import Document
from paredown.evaluators.sequences import SHORTEST, Sequences, cut, sequence_sets
from paredown.space.errors import StudyError
from paredown.space.study_file import Tokens
from shared import pico as families

TOKENIZER = families.tokenizer()


def texts(lengths: list[int]) -> list[Document]:
    return [Document(name=str(i), text=chr(65 + i) * length) for i, length in enumerate(lengths)]


lengths = st.lists(st.integers(1, 200), min_size=1, max_size=6)


@given(lengths, st.integers(16, 400), st.sampled_from([16, 32, 50]))
def test_windows_hold_the_text_and_nothing_else(lengths: list[int], tokens: int, length: int) -> None:
    """One of each document in turn; padded on the right, masked.

    No document is cut short before the tokens are reached.
    """
    documents = texts(lengths)
    windows = [min(length, n - start) for n in lengths for start in range(0, n, length)]
    usable = [n for n in windows if n >= SHORTEST]
    firsts = [min(length, n) for n in lengths if min(length, n) >= SHORTEST]
    enough = len(firsts) > 1 and firsts[0] < tokens  # a second document is reached
    if not enough:
        with pytest.raises(StudyError, match="too short"):
            found = cut(documents, TOKENIZER, tokens=tokens, length=length, what="search")
            assert len(found) >= 2  # pragma: no cover
        return
    found = cut(documents, TOKENIZER, tokens=tokens, length=length, what="search")
    assert found.tokens.shape == found.mask.shape == (len(found.document), length)
    total = int(found.mask.sum())
    assert total >= min(tokens, sum(usable))
    assert total - int(found.mask[-1].sum()) < tokens
    for row, mask in zip(found.tokens, found.mask, strict=True):
        count = int(mask.sum())
        assert mask.tolist() == [1] * count + [0] * (length - count)
        assert len(set(row[:count].tolist())) == 1
        assert (row[count:] == TOKENIZER.pad_token_id).all()
    rows = {(int(d), int(row[0])) for d, row in zip(found.document, found.tokens, strict=True)}
    assert len({d for d, _ in rows}) == len({letter for _, letter in rows}) == len(rows) == found.documents


def test_every_document_has_its_turn_before_any_has_two() -> None:
    found = cut(texts([100, 40, 100]), TOKENIZER, tokens=150, length=32, what="search")
    assert found.document.tolist() == [0, 1, 2, 0, 2]


def test_too_little_text_is_refused_with_the_set_named() -> None:
    with pytest.raises(
        StudyError, match="the text is too short: its held-out part has 0 tokens in 0 documents; give more text"
    ):
        cut([], TOKENIZER, tokens=100, length=32, what="held-out")


def test_the_four_sets_are_cut_to_what_the_model_takes() -> None:
    sets = {name: texts([100] * 6) for name in ("calibration", "search", "selection", "held-out")}
    found = sequence_sets(sets, TOKENIZER, Tokens(calibration=128, search=200, selection=300, held_out=400), longest=48)
    assert {name: part.tokens.shape[1] for name, part in found.items()} == dict.fromkeys(sets, 48)
    assert [int(part.mask.sum()) >= n for part, n in zip(found.values(), (128, 200, 300, 400), strict=True)] == [
        True
    ] * 4


def test_the_seed_decides_about_calibration_and_search_texts_alone() -> None:
    """Studies of other seeds are chosen among and compared on the same texts."""
    sets = {name: texts([60] * 12) for name in ("calibration", "search", "selection", "held-out")}
    few = Tokens(calibration=128, search=128, selection=128, held_out=128)
    one, same, other = (sequence_sets(sets, TOKENIZER, few, longest=32, seed=seed) for seed in (0, 0, 1))
    assert {name: torch.equal(one[name].tokens, same[name].tokens) for name in sets} == dict.fromkeys(sets, True)
    equal = {name: torch.equal(one[name].tokens, other[name].tokens) for name in sets}
    assert equal == {"calibration": False, "search": False, "selection": True, "held-out": True}


def test_batches_are_the_whole_in_order() -> None:
    found = cut(texts([100] * 5), TOKENIZER, tokens=400, length=32, what="search")
    batches = list(found.batches(3))
    assert torch.equal(torch.cat([b.tokens for b in batches]), found.tokens)
    assert torch.equal(torch.cat([b.document for b in batches]), found.document)
    head = found.head(2, 10)
    assert head.tokens.shape == (2, 10)
    assert torch.equal(head.tokens, found.tokens[:2, :10])


def test_the_fingerprint_is_of_the_tokens() -> None:
    one, same, other = (
        cut(texts(n), TOKENIZER, tokens=100, length=32, what="search") for n in ([90, 50], [90, 50], [90, 49])
    )
    assert one.sha256() == same.sha256() != other.sha256()


def test_so_many_tokens_of_texts() -> None:
    """Whole sequences, padding not counted; of one that is longer the beginning."""
    mask = (torch.arange(64) < torch.tensor([[40], [16], [30], [64]])).long()
    part = Sequences(tokens=torch.ones(4, 64, dtype=torch.long), mask=mask, document=torch.arange(4))
    assert [len(part.within(tokens)) for tokens in (30, 40, 55, 56, 86, 149, 150, 10**6)] == [1, 1, 1, 2, 3, 3, 4, 4]
    assert int(part.within(30).mask.sum()) == 30
