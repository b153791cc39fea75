"""Searches that are interrupted."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from commands import command, environment, write_study

import paredown


def trials_of(database: Path) -> dict[int, tuple[str, str]]:
    """Finished trials by number: when they ended, and what was recorded."""
    if not database.is_file():
        return {}
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        try:
            rows = connection.execute(
                "select number, datetime_complete, value_json from trials join trial_user_attributes using (trial_id) "
                "where state = 'COMPLETE'"
            ).fetchall()
        except sqlite3.OperationalError:  # its tables are being made
            return {}
    return {number: (ended, record) for number, ended, record in rows}


def until_trials(process: subprocess.Popen[str], database: Path, count: int) -> None:
    """Waits until so many trials are finished."""
    for _ in range(1200):
        if len(trials_of(database)) >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the search is too slow")


def test_interrupted_and_killed_searches_go_on(pico: Callable[[str], Path], tmp_path: Path) -> None:
    """Ctrl+C saves and exits with 130; kill -9 saves too; the same command goes on to the end; no finished trial is lost or repeated."""
    study, out = write_study(tmp_path, pico("llama")), tmp_path / "study"
    same = command("search", study, "--trials", 14, "--out", out)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()}

    with subprocess.Popen(same, **pipes) as process:
        until_trials(process, out / "study.db", 3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert f"the best so far is {out / 'best' / 'plan.yaml'}" in said
    assert f"to go on: paredown search {study} --trials 14 --out {out}" in said
    assert paredown.validate(out / "best" / "plan.yaml")
    assert json.loads((out / "front.json").read_text())["state"] == "stopped"
    first = trials_of(out / "study.db")

    with subprocess.Popen(same, **pipes) as process:
        until_trials(process, out / "study.db", len(first) + 4)
        process.kill()
        process.communicate()
    second = trials_of(out / "study.db")
    assert first.items() <= second.items()

    result = subprocess.run(same, capture_output=True, text=True, env=environment(), check=False)
    assert result.returncode == 0, result.stderr
    third = trials_of(out / "study.db")
    assert second.items() <= third.items()
    assert sorted(third) == list(range(14))
    assert paredown.status(out).state == "finished"
