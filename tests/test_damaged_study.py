"""Damaged files of a study folder: made again where that can be, refused in one line where not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paredown.search.outcome.outcome import Comparison, Finding, Outcome, Refit, Survival
from paredown.search.study.folder import finished
from paredown.search.study.select import select_plan
from paredown.search.trials.trial_log import TrialLog
from paredown.space.errors import StudyError
from paredown.space.site import Inventory
from paredown.space.study_file import StudyFile
from shared.commands import call
from shared.made_study import make_study
from tests.search.trials.test_race import SEEDS, content, run


@pytest.fixture(scope="module")
def made(inventory: Callable[[str], Inventory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study's folder; each test spoils it in its own way and puts it right."""
    folder = tmp_path_factory.mktemp("made")
    make_study(folder, inventory("llama"))
    return folder


def broken_fronts(text: str) -> Iterator[str]:
    """Contents of ``front.json`` that no search wrote."""
    content = json.loads(text)
    record = content["records"][0]

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
    yield from (changed(calibration={"data": "x"}), changed(records=[{**record, "loss": "low"}]), changed(records={}))
    yield from (
        changed(records=[{**record, "choices": {"site": {"method": "magic"}}}]),
        changed(records=[{**record, "choices": [1]}]),
    )
    yield changed(records=[{key: value for key, value in record.items() if key != "size_bytes"}])


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
            Outcome.read(made)
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
    from dataclasses import replace

    outcome = make_study(tmp_path, inventory("llama"))
    comparison = Comparison(number=next(iter(outcome.held_out)), mean=0.1 + 0.2, low=1 / 3, high=5e-324)
    whole = replace(
        outcome,
        refits={0: Refit(alone=0.1, in_order=0.3)},
        survival=Survival(number=0, search=comparison, fresh=comparison),
        selection={0: Finding(mean=1e300, low=0.0, high=float("inf"), documents=3, perplexity=None, draws=2)},
        timed={"original": {"decode_ms": None, "decode_iqr": None, "prefill_ms": 1 / 7, "prefill_iqr": 0.0}},
        records=tuple(replace(record, sequences=(1 / 3, 2.0), decode_ms=1 / 9) for record in outcome.records),
        patience=40,
        prices={"size_bytes": 1e-9},
        environment={"cores": 2, "torch": "2"},
    )
    whole.write(tmp_path)
    assert Outcome.read(tmp_path) == whole


def spoilt(path: Path, statement: str) -> bytes:
    """A database in which something was changed."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(path.read_bytes())
        connection.execute(statement)
        connection.commit()
        return connection.serialize()


def broken_databases(path: Path) -> Iterator[tuple[bytes, str]]:
    """A database spoilt in several ways, and what is said of each."""
    whole, of_second = path.read_bytes(), "where trial_id = 2"
    yield b"what is this" * 1000, "file is not a database"
    yield whole[: len(whole) // 2], ""
    yield whole[:20_000] + b"\x55" * 20_000 + whole[40_000:], ""
    yield b"", "it is empty"
    yield spoilt(path, f"delete from trial_user_attributes {of_second}"), "'paredown' is missing"
    yield (
        spoilt(path, f"update trial_user_attributes set value_json = '{{\"number\": 1}}' {of_second}"),
        "'choices' is missing",
    )
    yield spoilt(path, f"update trial_user_attributes set value_json = '{{{{{{' {of_second}"), ""
    yield spoilt(path, "drop table trial_user_attributes"), ""


def test_a_damaged_database_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Garbage, torn, empty, changed: the remedy is said, and with it the study goes on from the beginning."""
    before = run(tmp_path / "first.db", 4)
    with (
        closing(sqlite3.connect(tmp_path / "first.db")) as opened,
        closing(sqlite3.connect(tmp_path / "whole.db")) as copy,
    ):
        opened.backup(copy)
        copy.execute("pragma journal_mode=delete")
    for number, (broken, reason) in enumerate(broken_databases(tmp_path / "whole.db")):
        path = tmp_path / str(number) / "study.db"
        path.parent.mkdir()
        path.write_bytes(broken)
        (path.parent / "front.json").write_text("{}")
        with pytest.raises(
            StudyError, match=rf"study.db is damaged \(.*{reason}.*\); move it elsewhere and run the same"
        ) as caught:
            TrialLog(path, with_latency=False).records()
        assert "\n" not in str(caught.value)
    assert call(monkeypatch, "dashboard", tmp_path / "0") == 2
    assert "study.db is damaged" in capsys.readouterr().err
    (tmp_path / "0" / "study.db").rename(tmp_path / "0" / "study.db.damaged")
    assert content(run(tmp_path / "0" / "study.db", 4)) == content(before)


def test_a_database_that_was_just_made_is_not_damaged(tmp_path: Path) -> None:
    """A kill leaves an empty file before the first trial."""
    (tmp_path / "study.db").write_bytes(b"")
    assert len(run(tmp_path / "study.db", 2).history) == len(SEEDS) == 2


def test_a_damaged_inventory_is_refused_by_select(made: Path) -> None:
    """And reports do without it."""
    path = made / "inventory.json"
    text = path.read_text()
    for broken in ("", text[:-30], "[]", '{"sites": 3}'):
        path.write_text(broken)
        with pytest.raises(StudyError, match=r"inventory.json is damaged \(.+\); run its search again") as caught:
            select_plan(made, "40%")
        assert "\n" not in str(caught.value)
    path.write_text(text)
