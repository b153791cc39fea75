"""Whether a study's folder may be gone on in, and whether anything is left to do there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from made_study import make_study

from paredown.search.study_folder import finished, same_inputs, same_study
from paredown.search.verdict import summary_lines
from paredown.space.errors import StudyError
from paredown.space.site import Inventory
from paredown.space.study_file import StudyFile


@pytest.mark.parametrize(
    ("spent", "ended", "asked", "is_finished"),
    [
        (20.0, "", {"trials": 20}, True),
        (19.5, "", {"trials": 20}, False),
        (20.0, "", {"trials": 30}, False),
        (20.0, "", {"timeout": 60}, False),
        (12.0, "nothing better", {"trials": 20, "patience": "auto"}, True),
        (12.0, "nothing better", {"patience": "auto"}, True),
        (12.0, "nothing better", {"trials": 20}, False),
        (12.0, "nothing better", {"patience": 40}, False),
    ],
)
def test_a_study_is_finished_when_nothing_is_left_to_measure(
    spent: float, ended: str, asked: dict[str, int | str], is_finished: bool, inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    """Its count is reached, or the patience that is asked for now ended it; else it goes on. Who reads it is told why it ended."""
    made = replace(make_study(tmp_path, inventory("llama")), spent=spent, ended=ended, patience="auto" if ended else "off")
    made.write(tmp_path)
    question = StudyFile.model_validate({"model": "m", **asked})
    assert finished(tmp_path, question) == (made if is_finished else None)
    replace(made, state="searching").write(tmp_path)
    assert finished(tmp_path, question) is None
    assert finished(tmp_path / "empty", question) is None
    assert any("ended early, after 12: nothing better." in line for line in summary_lines(made, tmp_path)) == bool(ended)


def test_only_when_to_stop_may_change(tmp_path: Path) -> None:
    """Once a trial is there; before, the question may be mended. A folder of something else is left alone."""
    asked = StudyFile(model="m", trials=3)
    same_study(tmp_path / "study", asked)
    same_study(tmp_path / "study", asked.model_copy(update={"seed": 1}))
    same_inputs(tmp_path / "study", {"search": "1"})
    same_inputs(tmp_path / "study", {"search": "2"})
    (tmp_path / "study" / "study.db").write_text("")
    later = asked.model_copy(update={"seed": 1, "trials": 9, "patience": "auto"})
    same_study(tmp_path / "study", later)
    assert StudyFile.read(tmp_path / "study" / "study.yaml") == later
    same_inputs(tmp_path / "study", {"search": "2"})
    with pytest.raises(StudyError, match=r"holds another study \(other budget, seed\); choose another folder"):
        same_study(tmp_path / "study", asked.model_copy(update={"budget": "20%"}))
    with pytest.raises(StudyError, match="the model's weights or the texts changed since"):
        same_inputs(tmp_path / "study", {"search": "1"})
    with pytest.raises(StudyError, match="exists and is no study folder"):
        same_study(tmp_path, asked)
