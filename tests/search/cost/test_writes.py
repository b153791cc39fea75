"""The bytes that a search writes are known before it begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import paredown
from paredown.cli.progress import Silent
from paredown.compressors.tensor_files.record_names import about
from paredown.search.cost.writes import writes_of
from paredown.search.finalists.checks import DRAWS
from paredown.search.workbench.survey import survey
from paredown.space.budget import Budget
from shared import commands


class Watching(Silent):
    """Looks at each step how much lies in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.peak = folder, 0

    def step(self, name: str, done: int, of: int | None) -> None:
        self.peak = max(self.peak, sum(sizes(self.folder)))


def sizes(folder: Path, pattern: str = "*") -> list[int]:
    return [path.stat().st_size for path in folder.rglob(pattern) if path.is_file()]


def test_a_search_writes_what_was_said(pico: Callable[[str], Path], tmp_path: Path) -> None:
    """Records, statistics and the original's inputs to the byte, the bank and its peak within a tenth."""
    study = paredown.StudyFile.read(commands.write_study(tmp_path, pico("llama"))).model_copy(
        update={"budget": Budget.parse("17%"), "trials": 8}
    )
    said, cost = writes_of(study, survey(study)[1]), paredown.inspect(study).cost
    assert (cost["record_bytes"], cost["bank_bytes"], cost["disk_bytes"]) == (said.records, said.bank, said.peak)
    out = tmp_path / "out"
    watching = Watching(out / "bank")
    paredown.find_plan(study, out, progress=watching, workers=1)

    texts = json.loads((out / "bank.json").read_text())["statistics"]
    own = [
        path
        for path in (out / "bank").glob("??/*.safetensors")
        if (about(path) or {}).get("calibration", texts) == texts
    ]
    assert sum(path.stat().st_size for path in own) == said.records
    folders = [folder for folder in (out / "bank" / "statistics").iterdir() if folder.is_dir()]
    assert len(folders) == DRAWS
    statistics = [size for folder in folders for size in sizes(folder, "*.safetensors") + sizes(folder, "index.json")]
    assert sum(statistics) == pytest.approx(said.statistics, abs=30)  # how many digits a number has
    assert sum(sizes(out / "bank")) == pytest.approx(
        said.bank, rel=0.1
    )  # how many choices of finalists texts calibrate
    assert watching.peak == pytest.approx(said.peak - said.books, rel=0.1)
    widths = {"q": 32, "o": 32, "gate": 32, "down": 64}
    assert said.inputs == 2 * (2 * 512 * sum(widths.values()) + 80 * len(widths))


def test_plans_that_no_text_calibrates_are_written_once(pico: Callable[[str], Path], tmp_path: Path) -> None:
    """Where the budget allows 8 bits, no finalist is compressed again, and one draw is read.

    A lazy bank writes less than an eager one.
    """
    study = paredown.StudyFile.read(commands.write_study(tmp_path, pico("llama")))
    space = survey(study)[1]
    small, large = (
        writes_of(study.model_copy(update={"budget": Budget.parse(budget)}), space) for budget in ("17%", "40%")
    )
    assert (large.rebuilt, large.inputs) == (0, 0)
    assert small.rebuilt > 0
    assert small.statistics == DRAWS * large.statistics
    lazy = writes_of(study.model_copy(update={"budget": Budget.parse("17%"), "bank": "lazy"}), space)
    assert 0 < lazy.records <= small.records
