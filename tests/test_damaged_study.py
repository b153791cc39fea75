"""Damaged files of a study folder: made again where that can be, refused in one line where not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paredown.search.study.select import select_plan
from paredown.search.trials.trial_log import TrialLog
from paredown.space.errors import StudyError
from paredown.space.site import Inventory
from shared.commands import call
from shared.made_study import make_study
from tests.search.trials.test_race import SEEDS, content, run


@pytest.fixture(scope="module")
def made(inventory: Callable[[str], Inventory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study's folder; each test spoils it in its own way and puts it right."""
    folder = tmp_path_factory.mktemp("made")
    make_study(folder, inventory("llama"))
    return folder


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
            TrialLog(path, with_latency=False).measured()
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
