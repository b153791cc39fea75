"""Durations as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.space.errors import StudyError
from paredown.space.study_file import StudyFile
from paredown.space.system.duration import duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45m", 2700),
        ("1h30m", 5400),
        ("90s", 90),
        ("2h", 7200),
        ("2H", 7200),
        ("1.5h", 5400),
        ("1h 5m 10s", 3910),
        ("10min", 600),
        ("1h90s", 3690),
        ("90", 90),
        ("0.5", 0.5),
        (90, 90),
        (1e3, 1000),
        (" 20 ", 20),
    ],
)
def test_a_duration_is_seconds(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-5", "-5m", "h", "m45", "45d", "45 minutes", "30m1h", "1:30", "nan", "inf", "1e999", "1h2"]
)
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    """With examples of what is; a number after a unit needs its own."""
    with pytest.raises(StudyError, match="expected a duration such as 45m, 1h30m or 90s, or a number of seconds, got"):
        parse_duration(text)


@given(st.integers(1, 10**7))
def test_a_duration_comes_back_from_its_text(thousandths: int) -> None:
    assert parse_duration(duration_text(thousandths / 1000)) == pytest.approx(thousandths / 1000, abs=1e-9)


@pytest.mark.parametrize(
    ("written", "shown"), [("45m", "45m"), ("5400", "1h30m"), ("90s", "1m30s"), ("'20'", "20s"), ("1.5h", "1h30m")]
)
def test_a_study_takes_a_duration_and_shows_it(tmp_path: Path, written: str, shown: str) -> None:
    """The file of the study folder holds it readably, and is read again."""
    (tmp_path / "study.yaml").write_text(f"model: m\ntimeout: {written}\n")
    study = StudyFile.read(tmp_path / "study.yaml")
    study.write(tmp_path / "resolved.yaml")
    assert f"timeout: {shown}\n" in (tmp_path / "resolved.yaml").read_text()
    assert StudyFile.read(tmp_path / "resolved.yaml") == study
    (tmp_path / "study.yaml").write_text("model: m\ntimeout: soon\n")
    with pytest.raises(StudyError, match=r"study.yaml:2: timeout: expected a duration such as 45m.*got 'soon'"):
        StudyFile.read(tmp_path / "study.yaml")
