"""Laws of every sampler that is registered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import toys
from optuna.trial import TrialState

from paredown.search.samplers import Question, samplers
from paredown.search.solver import Solver
from paredown.search.study import Race, TrialLog
from paredown.search.workbench import Workbench
from paredown.space.study_file import StudyFile

SPACE = {"choices": {**toys.CHOICES, "ffn": ["prune-neurons sparsity=0.5"]}, "max_drops": 1}
TOKENS = {"calibration": 128, "search": 256, "selection": 128, "held_out": 128, "sequence_length": 32}


@pytest.fixture(scope="module")
def bench(pico: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    root = tmp_path_factory.mktemp("bench")
    study = {"model": str(pico("llama")), "data": [str(toys.write_text(root / "text.txt"))], "tokens": TOKENS, "space": SPACE}
    return Workbench(StudyFile.model_validate(study), root / "bank")


@pytest.mark.parametrize("name", list(samplers))
def test_a_study_runs_and_resumes(bench: Workbench, tmp_path: Path, name: str) -> None:
    """Six plans of the space, each measured on a real model; half of them after a new start."""
    losses = toys.losses_of(bench.space)
    budget = bench.space.inventory.original_bytes // 2
    question = Question(space=bench.space, solver=Solver(bench.space), losses=losses, budget_bytes=budget, seed=1)
    for trials in (3, 6):
        race = Race(TrialLog(tmp_path / "study.db", with_latency=False), question, name, [], bench.measure_rung, lambda plan: None)
        race.run(trials=trials, deadline=None, finished=lambda record: None)
    assert [trial.state for trial in race.log.study.trials] == [TrialState.COMPLETE] * 6
    assert [record.number for record in race.log.records()] == list(range(6))
    for record in race.history.values():
        assert record.origin == name
        assert bench.space.allows(record.plan)
        assert record.size_bytes == record.plan.size_bytes(bench.space.inventory)
        assert record.loss == bench.measure(record.plan).mean
    assert len({record.plan for record in race.history.values()}) > 3


@pytest.mark.parametrize("name", list(samplers))
def test_no_more_is_dropped_than_may_be(tmp_path: Path, name: str) -> None:
    """Blocks and feed-forward networks counted together, in every plan that is proposed; and pins stay."""
    space = toys.toy_space(blocks=4, max_drops=1, choices={"embedding": ["quantize bits=8"], "ffn": ["drop"]})
    question = toys.question_of(space, share=0.3)
    race = Race(
        TrialLog(tmp_path / "study.db", with_latency=False), question, name, [],
        lambda plan, sequences: toys.quality_of(1e-3 + toys.sum_of(space, plan, question.losses)), lambda plan: None,
    )  # fmt: skip
    race.run(trials=14, deadline=None, finished=lambda record: None)
    assert all(space.allows(record.plan) for record in race.history.values())
    assert max(str(record.plan).count(": drop") for record in race.history.values()) == 1
