"""Whether a study's folder may be gone on in, and whether anything is left to do there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from paredown.cli.progress import Silent
from paredown.deploy.engines.transformers import TorchModel
from paredown.search.outcome.front_file import write_front_file
from paredown.search.report.verdict import summary_lines
from paredown.search.study.folder import finished, keep_environment, locked, moved_aside, same_study
from paredown.search.study.run import run_study
from paredown.space.budget import Budget
from paredown.space.errors import OutputError, StudyError
from paredown.space.site import Inventory
from paredown.space.study_file import StudyFile
from shared.made_study import changed, make_study


@pytest.mark.parametrize(
    ("spent", "ended", "asked", "is_finished"),
    [
        (20.0, "", {"trials": 20}, True),
        (19.5, "", {"trials": 20}, False),
        (20.0, "", {"trials": 30}, False),
        (20.0, "", {"timeout": 60}, False),
        (12.0, "nothing better", {"trials": 20, "patience": "auto"}, True),
        (12.0, "nothing better", {"patience": "auto"}, True),
        (12.0, "nothing better", {"trials": 20, "patience": "off"}, False),
        (12.0, "nothing better", {"patience": 40}, False),
    ],
)
def test_a_study_is_finished_when_nothing_is_left_to_measure(
    spent: float,
    ended: str,
    asked: dict[str, int | str],
    is_finished: bool,
    inventory: Callable[[str], Inventory],
    tmp_path: Path,
) -> None:
    """Its count is reached, or the patience that is asked for now ended it; else it goes on.

    Who reads it is told why it ended.
    """
    made = changed(
        make_study(tmp_path, inventory("llama")), spent=spent, ended=ended, patience="auto" if ended else "off"
    )
    write_front_file(made, tmp_path)
    study_file = StudyFile.model_validate({"model": "m", **asked})
    assert finished(tmp_path, study_file) == (made if is_finished else None)
    write_front_file(replace(made, state="searching"), tmp_path)
    assert finished(tmp_path, study_file) is None
    assert finished(tmp_path / "empty", study_file) is None
    assert any(
        "ended early, after 12 trials' worth of tokens: nothing better." in line
        for line in summary_lines(made, tmp_path)
    ) == bool(ended)


def test_only_when_to_stop_may_change(tmp_path: Path) -> None:
    """Once a trial is there; before, the question may be mended. A folder of something else is left alone."""
    asked = StudyFile(model="m", trials=3)
    same_study(tmp_path / "study", asked)
    same_study(tmp_path / "study", asked.model_copy(update={"seed": 1}))
    (tmp_path / "study" / "study.db").write_text("")
    later = asked.model_copy(update={"seed": 1, "trials": 9, "patience": "auto"})
    same_study(tmp_path / "study", later)
    assert StudyFile.read(tmp_path / "study" / "study.yaml") == later
    with pytest.raises(StudyError, match=r"holds another study \(other budget, seed\); choose another folder"):
        same_study(tmp_path / "study", asked.model_copy(update={"budget": Budget.parse("20%")}))
    with pytest.raises(StudyError, match="exists and is not a study folder"):
        same_study(tmp_path, asked)


def test_every_environment_that_a_study_ran_in_is_kept(tmp_path: Path) -> None:
    """Once each, with the time when it first did; the one of an older version too; a damaged file is begun again."""
    path, now, later = tmp_path / "environment.json", {"torch": "2.0", "cores": 2}, {"torch": "2.1", "cores": 2}
    for found in (now, later, now):
        keep_environment(tmp_path, found)
    kept = json.loads(path.read_text())
    assert [{key: value for key, value in each.items() if key != "since"} for each in kept] == [now, later]
    assert all(each["since"].startswith("20") for each in kept)
    path.write_text(json.dumps({"torch": "1.0"}))
    keep_environment(tmp_path, now)
    assert [each["torch"] for each in json.loads(path.read_text())] == ["1.0", "2.0"]
    for damage in ("[", "[3]", "5"):
        path.write_text(damage)
        keep_environment(tmp_path, now)
        assert [each["torch"] for each in json.loads(path.read_text())] == ["2.0"]


def test_a_folder_is_moved_aside_under_a_free_name(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "study").mkdir()
        (tmp_path / "study" / "file").write_text(str(number))
        assert moved_aside(tmp_path / "study") == tmp_path / f"study.before-{number}"
    assert [(tmp_path / f"study.before-{number}" / "file").read_text() for number in (1, 2)] == ["1", "2"]


@pytest.mark.parametrize("place", [".", ".."])
def test_the_current_folder_is_not_moved(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path would follow it to its new name."""
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(OutputError, match="it holds the current folder; run the command from outside of it"):
        moved_aside(Path(place))
    assert (tmp_path / "below").is_dir()


def test_a_bank_is_not_the_study_folder(tmp_path: Path) -> None:
    """Else a search would wait for its own lock."""
    out = tmp_path / "out"
    with pytest.raises(StudyError, match="cannot be both --out and --bank; leave out --bank"):
        run_study(StudyFile(model="m"), out, Silent(), TorchModel, bank=tmp_path / "bank" / ".." / "out")
    assert not out.exists()


def test_one_search_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "study"),
        pytest.raises(StudyError, match="another search runs in"),
        locked(tmp_path / "study"),
    ):
        pass
    with locked(tmp_path / "study"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"), locked(tmp_path / "file"):
        pass
