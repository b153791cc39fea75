"""Processes that kill themselves before their n-th write, sync, rename, removal or new folder.

    python scripts/kill_searches.py publish FOLDER [N]
        every change of the last step of a made study, or one in N; with --draw also pictures
    python scripts/kill_searches.py database FOLDER [N]
        every change by which the trial database is made, after the solver's plan was offered, or one in N
    python scripts/kill_searches.py search FOLDER 100 20
        a short search of a pico model at 100 random n, and at 20 after its trials

After each kill the same is run again to its end: the folder must hold what it holds without a kill, and nothing else.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.backends.backend_agg  # noqa: F401 - once, and not in every child
import pandas as pd  # noqa: F401
import scipy.stats  # noqa: F401

import paredown
import paredown.search.study.run as study_run
from paredown.compressors.original.find_sites import inventory_of
from paredown.search.finalists.rebuild import Rebuilder
from paredown.search.outcome.front_file import write_front_file
from paredown.search.outcome.outcome import Outcome, Trials
from paredown.search.outcome.plan_files import publish
from paredown.search.report.report import write_report
from paredown.search.study.folder import finished, tidy
from paredown.search.trials.trial_log import TrialLog
from paredown.space.plan_file import PlanFile
from paredown.space.study_file import StudyFile
from paredown.space.system.temporary import UNFINISHED
from shared import pico, toys
from shared.killer import Killer, in_child
from shared.made_study import make_study

CALIBRATED = "quantize bits=3 group_size=32 algorithm=gptq"
SPACE = {
    "choices": {"linear": ["quantize bits=2", CALIBRATED, "keep"], "embedding": ["quantize bits=8"], "ffn": []},
    "max_drops": 1,
}
TOKENS = {"calibration": 256, "search": 256, "selection": 256, "held_out": 256, "sequence_length": 32}
TRIALS = 9


def tree(folder: Path) -> dict[str, Any]:
    """All that people find in a study folder, without what a clock or SQLite says.

    Of the bank only what is left over there.
    """
    found: dict[str, Any] = {"left over": [str(path) for path in folder.rglob("*") if UNFINISHED in path.name]}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.startswith("bank/") or name in ("study.db-wal", "study.db-shm"):
            continue
        found[name] = path.read_bytes() if path.suffix == ".yaml" else path.is_dir()
    outcome = json.loads((folder / "front.json").read_text())
    for record in outcome["records"]:
        del record["seconds"]
    return found | {"outcome": {key: value for key, value in outcome.items() if key not in ("seconds", "timed")}}


def last_step(folder: Path, final: Outcome, killer: Killer) -> None:
    """What a search does after its last measurement, and when it is called again."""
    study_file = StudyFile.read(folder / "study.yaml")
    tidy(folder)
    reference = PlanFile.read(folder / "best" / "plan.yaml").base_model
    publish(
        finished(folder, study_file) or final,
        reference,
        folder,
        partial(write_report, draw="--draw" in sys.argv),
        lambda trial: None,
    )


def kill_publish(root: Path, stride: int = 1) -> str:
    """Every n of the last step, or one of ``stride``."""
    inventory = inventory_of(pico.save("llama", root / "model"))
    searching = make_study(root / "before", inventory, state="searching")
    (root / "before" / "front" / "12345").mkdir()  # a plan that left the front
    (root / "before" / "front" / "12345" / "plan.yaml").write_text("")
    write_report(searching, root / "before")
    final = make_study(root / "final", inventory, ratio=1.1)
    assert final.best != searching.best
    step = partial(last_step, root / "study", final)

    def run(fatal: int | None) -> dict[str, int] | None:
        return in_child(step, fatal)

    shutil.copytree(root / "before", root / "study")
    through = run(None)
    assert through
    expected, total, wrong = tree(root / "study"), through["changes"], []
    fatals = range(0, total, stride)
    for fatal in fatals:
        shutil.rmtree(root / "study")
        shutil.copytree(root / "before", root / "study")
        assert run(fatal) is None
        run(None)
        if tree(root / "study") != expected:
            wrong.append(fatal)
    assert not wrong, f"another folder after kills before changes {wrong} of {total}"
    return f"publish: {len(fatals)} kills before one of {total} changes; the same folder after each"


def kill_database(root: Path, stride: int = 1) -> str:
    """Every n of the creation of a trial database, or one of ``stride``; ``front.json`` holds no trial yet."""
    made = make_study(root / "made", inventory_of(pico.save("llama", root / "model")), state="searching")
    write_front_file(replace(made, trials=Trials()), root)

    def open_log(killer: Killer) -> None:
        TrialLog(root / "study.db", with_latency=False)

    def run(fatal: int | None) -> dict[str, int] | None:
        return in_child(open_log, fatal)

    through = run(None)
    assert through
    fatals = range(0, through["changes"], stride)
    for fatal in fatals:
        for path in root.glob("study.db*"):
            path.unlink()
        run(fatal)
        run(None)
        log = TrialLog(root / "study.db", with_latency=False)
        assert log.measured() == [] and len(log.study.directions) == 2, f"after a kill before change {fatal}"
    return f"database: {len(fatals)} kills before one of {through['changes']} changes; it opens after each"


def search(question: dict[str, Any], folder: Path, killer: Killer) -> None:
    """A whole search; each measurement of a finalist is noted beside the folder."""
    real = Rebuilder.measure

    def measure(self: Rebuilder, *arguments: Any) -> Any:
        killer.marks.setdefault("finalists", killer.changes)
        with folder.with_suffix(".asked").open("a") as file:
            file.write("x")
        return real(self, *arguments)

    Rebuilder.measure = measure  # type: ignore[method-assign]
    study_run.PUBLISH_SECONDS = 0.0  # the number of changes must not depend on the clock
    paredown.find_plan(question, folder, workers=1)


class Searches:
    """The same short search again and again, each time in a folder of its own.

    Args:
        root: Where the folders are made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        model, text = pico.save("llama", root / "model"), toys.write_text(root / "text.txt", toys.passages(60))
        self.question = {"model": str(model), "data": [str(text)], "budget": "35%", "trials": TRIALS, "latency": "off"}
        self.question |= {"tokens": TOKENS, "space": SPACE}

    def run(self, name: str, fatal: int | None = None) -> dict[str, int] | None:
        """Runs it to its end or its kill; as `in_child`."""
        return in_child(partial(search, self.question, self.root / name), fatal)

    def asked(self, name: str) -> int:
        """How many measurements of finalists were made in a folder by all its processes."""
        path = (self.root / name).with_suffix(".asked")
        return path.stat().st_size if path.is_file() else 0


def kill_search(root: Path, whole: int, finalists: int, seed: int = 0) -> str:
    """A short search at random n, then from its first finalist on: each kill repeats at most one measurement."""
    searches, draw, repeated = Searches(root), random.Random(seed), []
    through = searches.run("through")
    assert through
    expected, once = tree(root / "through"), searches.asked("through")
    assert searches.run("begun", through["finalists"]) is None
    (root / "begun.asked").unlink()
    shutil.copytree(root / "begun", root / "counted")
    resumed = searches.run("counted")
    assert resumed
    early = draw.sample(range(through["changes"]), whole)
    late = draw.sample(range(resumed["finalists"], resumed["changes"]), finalists)
    for number, (fatal, begins) in enumerate(
        [*((fatal, None) for fatal in early), *((fatal, "begun") for fatal in late)]
    ):
        name = f"killed-{number}"
        if begins:
            shutil.copytree(root / begins, root / name)
        assert searches.run(name, fatal) is None, f"change {fatal} was not reached"
        assert searches.run(name)
        assert tree(root / name) == expected, f"another folder after a kill before change {fatal} {begins or 'of all'}"
        repeated.append(searches.asked(name) - once)
        shutil.rmtree(root / name)
    assert max(repeated) <= 1, f"measurements of finalists repeated after each kill: {repeated}"
    told = f"search: {whole} kills before one of {through['changes']} changes, {finalists} among the finalists"
    told += f"; the same folder after each; of {once} measurements of finalists {sum(repeated)} repeated in all"
    return f"{told}, at most {max(repeated)} for a kill"


def main(kind: str, folder: str, *kills: str) -> None:
    """The command."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    run: Callable[..., str] = {"publish": kill_publish, "database": kill_database, "search": kill_search}[kind]
    print(run(root, *(int(each) for each in kills if each != "--draw")))


if __name__ == "__main__":
    main(*sys.argv[1:])
