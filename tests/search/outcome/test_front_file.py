"""The file of an outcome: flat, read as it was written, and refused in one line where it is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paredown.search.outcome.decision import Comparison, Finding, Refit, Survival
from paredown.search.outcome.front_file import KEYS, read_front_file, write_front_file
from paredown.search.study.folder import finished
from paredown.search.trial import Reading, Times
from paredown.space.errors import StudyError
from paredown.space.site import Inventory
from paredown.space.study_file import StudyFile
from shared.commands import call
from shared.made_study import changed, make_study


@pytest.fixture
def made(inventory: Callable[[str], Inventory], tmp_path: Path) -> Path:
    """A finished study's folder."""
    make_study(tmp_path, inventory("llama"))
    return tmp_path


def broken_fronts(text: str) -> Iterator[str]:
    """Contents of ``front.json`` that no search wrote."""
    content = json.loads(text)
    trial = content["records"][0]

    def changed(**changes: Any) -> str:
        return json.dumps({**content, **changes})

    yield from ("", text[:-200], "\0" * 50, "null", "[]", "3", "[" * 100_000)
    yield from (
        json.dumps({key: value for key, value in content.items() if key != left})
        for left in ("records", "state", "budget_bytes")
    )
    yield from (
        changed(winner=999),
        changed(winner="none"),
        changed(metric="joy"),
        changed(state="happy"),
        changed(original_bytes=0),
    )
    yield from (
        changed(budget_bytes="many"),
        changed(held_out={"0": {"mean": 1}}),
        changed(held_out={}),
        changed(selection={"x": {}}),
    )
    yield from (
        changed(comparisons=[1]),
        changed(timed={"0": {}}),
        changed(survival={"number": 1}),
        changed(records=[None]),
    )
    yield from (changed(calibration={"data": "x"}), changed(records=[{**trial, "loss": "low"}]), changed(records={}))
    yield from (
        changed(records=[{**trial, "choices": {"site": {"method": "magic"}}}]),
        changed(records=[{**trial, "choices": [1]}]),
    )
    yield changed(records=[{key: value for key, value in trial.items() if key != "size_bytes"}])


def test_a_damaged_front_is_refused_in_one_line(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By every command that reads it, with the remedy; a search takes the study for unfinished and writes it again."""
    path = made / "front.json"
    text = path.read_text()
    asked = StudyFile(model="m", trials=1)
    for broken in broken_fronts(text):
        path.write_text(broken)
        with pytest.raises(StudyError, match=r"front.json is damaged \(.+\); run the search again") as caught:
            read_front_file(made)
        assert "\n" not in str(caught.value)
        assert finished(made, asked) is None
    for command in (["status", made], ["report", made], ["select", made, "--budget", "40%"]):
        assert call(monkeypatch, *command) == 2
        said = capsys.readouterr().err
        assert said.startswith("paredown: ")
        assert said.count("\n") == 1
    path.write_text(text)


def test_an_outcome_comes_back_as_it_was(inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """Every number of it, those that are no numbers included."""
    outcome = make_study(tmp_path, inventory("llama"))
    comparison = Comparison(number=next(iter(outcome.decision.held_out)), mean=0.1 + 0.2, low=1 / 3, high=5e-324)
    whole = changed(
        replace(
            outcome,
            timed={"original": {"decode_ms": None, "decode_iqr": None, "prefill_ms": 1 / 7, "prefill_iqr": 0.0}},
            prices={"size_bytes": 1e-9},
        ),
        refits={0: Refit(alone=0.1, in_order=0.3)},
        survival=Survival(number=0, search=comparison, fresh=comparison),
        selection={0: Finding(mean=1e300, low=0.0, high=float("inf"), documents=3, perplexity=None, draws=2)},
        measured=tuple(
            replace(trial, read=Reading(sequences=(1 / 3, 2.0)), times=Times(decode_ms=1 / 9))
            for trial in outcome.trials.measured
        ),
        patience=40,
        environment={"cores": 2, "torch": "2"},
    )
    write_front_file(whole, tmp_path)
    assert read_front_file(tmp_path) == whole


def test_the_file_is_flat(made: Path) -> None:
    """Its keys keep their order, whatever the parts of an outcome are in the code."""
    content = json.loads((made / "front.json").read_text())
    assert list(content) == list(KEYS)
    assert content["winner"] == content["records"][0]["number"] == 0
    assert content["front"] == [trial.number for trial in read_front_file(made).trials.front]
