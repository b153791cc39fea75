"""Budgets as people write them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.space.budget import Budget
from paredown.space.errors import StudyError
from paredown.space.site import Inventory
from paredown.space.study_file import StudyFile

ORIGINAL, PARAMETERS = 1_000_003, 500_001


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("45%", 450_001),
        ("100%", ORIGINAL),
        ("4.25bpw", 265_625),
        ("16 bpw", 2 * PARAMETERS),
        ("3.5GB", 3_500_000_000),
        ("3.5gb", 3_500_000_000),
        ("1GiB", 2**30),
        (" 12 KiB ", 12_288),
        ("1MB", 10**6),
        ("700000B", 700_000),
        ("7e5 b", 700_000),
        (".5%", 5_000),
        ("12B", 12),
    ],
)
def test_a_budget_is_bytes(text: str, size_bytes: int) -> None:
    """Percent of the original's bytes, bits per original parameter, or bytes; rounded down."""
    assert Budget.parse(text).bytes_of(ORIGINAL, PARAMETERS) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0%",
        "-5%",
        "lots",
        "45 percent",
        "3,5GB",
        "nan",
        "inf",
        "1e999",
        "4bpw extra",
        "9e17%",
        "9e17bpw",
        "%",
        "5%%",
        "GB",
        "1e300GB",
        "1e308%",
        "1e18bpw",
    ],
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    """With examples of what is."""
    with pytest.raises(StudyError, match="expected a budget such as 45%, 3.5GB or 4.25bpw, got"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["35", "0.35", "7e5", " 3500000000 "])
def test_a_number_without_a_unit_is_refused(text: str, tmp_path: Path) -> None:
    """However large, in flags and in files; the message shows each way to write it."""
    number = text.strip()
    message = (
        f"{number} has no unit; write {number}% .*, {number}bpw .*, or bytes as {number}B, {number}MB or {number}GB"
    )
    with pytest.raises(StudyError, match=message):
        Budget.parse(text)
    for line in (f"budget: {text}", f"budget: '{text}'"):
        (tmp_path / "study.yaml").write_text(f"model: m\n{line}\n")
        with pytest.raises(StudyError, match="study.yaml:2: budget: .* has no unit; write "):
            StudyFile.read(tmp_path / "study.yaml")


@given(st.integers(1, 10**5), st.integers(1, 10**12))
def test_percentages_are_exact(hundredths: int, original: int) -> None:
    """No budget is a byte more than exact arithmetic gives, nor a byte less."""
    number = f"{hundredths // 100}.{hundredths % 100:02}"
    exact = Fraction(hundredths, 10_000) * original
    assert Budget.parse(f"{number}%").bytes_of(original, 1) == exact.__floor__()


def test_a_budget_counts_what_the_model_has(inventory: Callable[[str], Inventory]) -> None:
    """A percentage of its bytes as stored, bits for each of its parameters."""
    model = inventory("llama")
    assert model.original_bytes != model.parameters
    assert model.budget_bytes(Budget.parse("100%")) == model.original_bytes
    assert model.budget_bytes(Budget.parse("8bpw")) == model.parameters
    assert model.budget_bytes(Budget.parse("1kB")) == 1000


def test_a_study_file_keeps_the_budget_as_it_was_written(tmp_path: Path) -> None:
    """Parsed once, when the file is checked; the same text in the file that a search writes."""
    path = tmp_path / "study.yaml"
    path.write_text("model: m\nbudget: 3.50 GB\n")
    study = StudyFile.read(path)
    assert study.budget == Budget(text="3.50 GB", number=3.5, unit="gb")
    study.write(path)
    assert "budget: 3.50 GB\n" in path.read_text()
    assert StudyFile.read(path) == study
