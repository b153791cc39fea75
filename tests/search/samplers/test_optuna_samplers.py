"""Laws of every sampler that is registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from paredown.evaluators.quality import Quality
from paredown.search.samplers import Problem, Proposal, Warm, samplers
from paredown.search.samplers.optuna_samplers import by_role
from paredown.search.solver.solver import Solver
from paredown.search.trials.race import Race
from paredown.search.trials.trial_log import TrialLog
from paredown.search.workbench.workbench import Workbench
from paredown.space.choice import parse_choice
from paredown.space.plan import Plan
from paredown.space.study_file import StudyFile
from shared import toys

SPACE = {"choices": {**toys.CHOICES, "ffn": ["prune-neurons sparsity=0.5"]}, "max_drops": 1}
TOKENS = {"calibration": 128, "search": 256, "selection": 128, "held_out": 128, "sequence_length": 32}


@pytest.fixture(scope="module")
def bench(pico: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    root = tmp_path_factory.mktemp("bench")
    study = {
        "model": str(pico("llama")),
        "data": [str(toys.write_text(root / "text.txt"))],
        "tokens": TOKENS,
        "space": SPACE,
    }
    return Workbench.open(StudyFile.model_validate(study), root / "bank")


@pytest.mark.parametrize("name", list(samplers))
def test_a_study_runs_and_resumes(bench: Workbench, tmp_path: Path, name: str) -> None:
    """The passes of six plans, measured on a real model, on all sequences or fewer; half of them after a restart."""
    losses = toys.losses_of(bench.space)
    budget = bench.space.inventory.original_bytes // 2
    sequences = len(bench.texts.sequences["search"])
    problem = Problem(
        space=bench.space, solver=Solver(bench.space), losses=losses, budget_bytes=budget, seed=1, sequences=sequences
    )
    for trials in (3, 6):
        race = Race(
            TrialLog(tmp_path / "study.db", with_latency=False),
            problem,
            name,
            [],
            bench.evaluator.measure_rung,
            lambda plan: None,
        )
        race.run(trials=trials, finished=lambda trial: None)
    measured = race.log.measured()
    states = [TrialState.COMPLETE if trial.read.whole else TrialState.PRUNED for trial in measured]
    assert [trial.state for trial in race.log.study.trials] == states
    assert [trial.number for trial in measured] == list(range(len(states)))
    assert 6 <= race.spent == sum(len(trial.read.sequences) for trial in measured) / sequences < 7
    for trial in race.history.values():
        assert trial.origin == name
        assert bench.space.allows(trial.plan)
        assert trial.size_bytes == trial.plan.size_bytes(bench.space.inventory)
        assert trial.loss == bench.evaluator.measure_rung(trial.plan, len(trial.read.sequences)).mean
    assert len({trial.plan for trial in race.history.values()}) > 3


@pytest.mark.parametrize("name", list(samplers))
def test_no_more_is_dropped_than_may_be(tmp_path: Path, name: str) -> None:
    """Blocks and feed-forward networks counted together, in every plan that is proposed; and pins stay."""
    space = toys.toy_space(blocks=4, max_drops=1, choices={"embedding": ["quantize bits=8"], "ffn": ["drop"]})
    problem = replace(toys.problem_of(space, share=0.3), sequences=8)

    def measure(plan: Plan, sequences: int | None) -> Quality:
        loss = 1e-3 + toys.sum_of(space, plan, problem.losses)
        return replace(toys.quality_of(loss), sequences=(loss,) * (sequences or 8))

    race = Race(TrialLog(tmp_path / "study.db", with_latency=False), problem, name, [], measure, lambda plan: None)
    race.run(trials=12, finished=lambda trial: None)
    assert all(space.allows(trial.plan) for trial in race.history.values())
    assert max(str(trial.plan).count(": drop") for trial in race.history.values()) == 1


WARM = [name for name in samplers if isinstance(samplers[name](toys.problem_of(toys.toy_space())), Warm)]


@pytest.mark.parametrize("name", WARM)
def test_what_is_measured_first_is_known_to_optuna(tmp_path: Path, name: str) -> None:
    """Its parameters make the same plan; a choice that is not offered becomes the offered one of nearest bytes."""
    space = toys.toy_space(blocks=3)
    problem = toys.problem_of(space, share=0.4)
    foreign = Plan.of(
        space.inventory,
        {site.name: parse_choice("quantize bits=3") for site in space.inventory.leaves if site.kind == "linear"},
    )
    plans = [problem.solver.smallest(), Plan(), foreign]
    seeds = [("solver", Proposal(plan=plan, label="seed")) for plan in plans]
    race = Race(
        TrialLog(tmp_path / "study.db", with_latency=False),
        problem,
        name,
        seeds,
        lambda plan, _: toys.quality_of(0.1),
        lambda plan: None,
    )
    race.run(trials=4, finished=lambda trial: None)
    assert [trial.plan for trial in race.measured[:3]] == plans
    trials = race.log.study.trials
    assert len({frozenset(trial.params) for trial in trials}) == 1
    third = trials[2].params
    assert set(trials[1].params.values()) == {"keep"}
    if name != "gp":
        assert {value for key, value in third.items() if space.inventory[key].kind == "linear"} == {"quantize bits=2"}
        chosen = {key: parse_choice(value) for key, value in trials[0].params.items()}
        assert Plan.of(space.inventory, chosen) == plans[0]


def test_a_population_descends_from_what_was_measured_first(tmp_path: Path) -> None:
    """Cold, the first generation is drawn at random; seeds that fill it are its parents."""
    space = toys.toy_space(blocks=2, max_drops=0, choices={"ffn": ["keep"], "block": ["keep"]})
    problem = toys.problem_of(space, share=0.4)
    plan = problem.solver.solve(problem.losses, problem.budget_bytes)
    seeds = [("solver", Proposal(plan=plan, label="seed"))] * 20
    race = Race(
        TrialLog(tmp_path / "study.db", with_latency=False),
        problem,
        "nsga2",
        seeds,
        lambda plan, _: toys.quality_of(0.1),
        lambda plan: None,
    )
    race.run(trials=24, finished=lambda trial: None)
    children = [trial.plan for trial in race.measured[20:]]
    leaves = [site.name for site in space.inventory.leaves]
    assert all(sum(child[leaf] != plan[leaf] for leaf in leaves) <= 3 for child in children)


def test_a_block_has_one_choice_a_role() -> None:
    """Its attention's leaves share one, its feed-forward network's another; all other sites have their own."""
    space = toys.toy_space(blocks=2)
    groups = {name: [site.name for site in sites] for name, sites in by_role(space).items()}
    assert groups["feed-forward of block 1"] == ["layers.1.up", "layers.1.down"]
    assert groups["attention of block 0"] == ["layers.0.attention"]
    assert sorted(site for sites in groups.values() for site in sites) == sorted(site.name for site in space.searched)
    assert len(groups) == 1 + 2 * 4
