"""Another budget, from what a study left on disk."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paredown.search.study.select import select_plan
from paredown.space.errors import BudgetError, StudyError
from paredown.space.plan_file import PlanFile
from paredown.space.site import Inventory
from shared.made_study import make_study


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_budget_is_met_and_quality_is_called_predicted(
    name: str, inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    """Whatever the budget, the plan fits the model and the budget, and no number in it is passed off as measured."""
    make_study(tmp_path, inventory(name))
    sizes = []
    for budget in ("25%", "35%", "9bpw", "90%"):
        selected = select_plan(tmp_path, budget, tmp_path / "plans" / f"{budget}.yaml")
        file = PlanFile.read(selected.path)
        plan = file.plan_for(inventory(name))
        assert plan.size_bytes(inventory(name)) == file.size_bytes <= selected.budget_bytes
        assert file.quality is not None
        assert file.quality["measured_on"] == "predicted"
        assert file.quality["mean"] == pytest.approx(selected.predicted_loss)
        sizes.append(file.size_bytes)
    assert len(set(sizes)) > 2


def test_a_plan_that_was_measured_says_so(inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """At the study's own budget the solver's plan comes back, with its measurement beside the prediction."""
    outcome = make_study(tmp_path, inventory("llama"))
    selected = select_plan(tmp_path, f"{outcome.trials.measured[0].size_bytes}B")
    assert selected.alternative is not None
    if selected.measured is None:  # the trials taught the surrogate to prefer another plan
        assert selected.plan_file.quality is not None
        assert "measured" not in selected.plan_file.quality
        pytest.skip("the surrogate moved on")
    assert selected.plan_file.quality is not None
    assert selected.plan_file.quality["measured"]["measured_on"] == "held-out"


def test_impossible_budget_leaves_the_smallest_plan(inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """No plan is that small: the smallest is on disk, and the message says how small it is."""
    make_study(tmp_path, inventory("llama"))
    with pytest.raises(
        BudgetError,
        match=r"the smallest plan of the space has [\d,]+; it was saved to .*small.yaml; raise the budget to",
    ):
        select_plan(tmp_path, "1%", tmp_path / "small.yaml")
    smallest = PlanFile.read(tmp_path / "small.yaml")
    assert smallest.quality is None
    assert smallest.plan_for(inventory("llama")).size_bytes(inventory("llama")) == smallest.size_bytes


@pytest.mark.parametrize("missing", ["front.json", "inventory.json", "sensitivity.json", "study.yaml"])
def test_incomplete_folder(missing: str, inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """A folder without a study, or with one that is not far enough, is refused by name."""
    make_study(tmp_path, inventory("llama"))
    (tmp_path / missing).unlink()
    with pytest.raises(StudyError, match=missing):
        select_plan(tmp_path, "40%")


def test_no_torch_and_no_wait(inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """The command imports neither torch nor transformers nor optuna, and ends within five seconds of processor time."""
    make_study(tmp_path, inventory("llama"))
    program = (
        "import sys, time; sys.argv = ['paredown', 'select', '.', '--budget', '40%', '--out', 'plan.yaml']\n"
        "from paredown.entry import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'transformers', 'optuna'} & set(sys.modules)\n"
        "assert time.process_time() < 5"
    )
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "predicted loss" in result.stdout
    assert (tmp_path / "plan.yaml").is_file()
    assert time.monotonic() - started < 60
