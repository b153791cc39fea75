"""A surrogate, NSGA-II on it, and the plans that even the front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import cast

import numpy as np
import optuna
import pytest

from paredown.search.pareto import hypervolume
from paredown.search.samplers import Problem, samplers
from paredown.search.samplers.amq import BATCH, INITIAL, AmqSampler, spread
from paredown.search.trial import Trial
from paredown.space.plan import Plan
from shared import toys

BITS = [f"quantize bits={bits}" for bits in (2, 3, 4, 8)]
SPACE = toys.toy_space(max_drops=0, choices={"linear": BITS, "ffn": ["keep"], "block": ["keep"]})
PROBLEM = toys.problem_of(SPACE, share=0.35)
JOINT = toys.problem_of(toys.toy_space(blocks=3, choices={"linear": BITS}), share=0.3)


def begun(number: int) -> optuna.Trial:
    """A trial that has begun; the sampler reads only its number."""
    return cast(optuna.Trial, optuna.trial.FixedTrial({}, number))


def measured(problem: Problem, plan: Plan, number: int, origin: str = "amq", label: str = "") -> Trial:
    loss = toys.sum_of(problem.space, plan, problem.losses) ** 1.2 + 1e-3
    return replace(toys.trial_of(problem.space, plan, loss, number), origin=origin, label=label)


def searched(problem: Problem, length: int, propose: Callable[[int, list[Trial]], Plan] | None = None) -> list[Trial]:
    sampler, history = samplers["amq"](problem), list[Trial]()
    while len(history) < length:
        asked = sampler.propose(begun(len(history)), history)
        plan = propose(len(history), history) if propose else asked.plan
        history.append(measured(problem, plan, len(history), label=asked.label))
    return history


@pytest.fixture(scope="module")
def history() -> list[Trial]:
    return searched(JOINT, INITIAL + 4 * BATCH)


def test_plans_are_new_allowed_and_no_larger_than_twice_the_budget(history: list[Trial]) -> None:
    assert len({trial.plan for trial in history}) == len(history)
    assert all(JOINT.space.allows(trial.plan) and trial.size_bytes <= 2 * JOINT.budget_bytes for trial in history)


def test_it_begins_with_uniform_and_random_plans_then_in_batches(history: list[Trial]) -> None:
    """The uniform ones by level; the random ones of all sizes."""
    labels = [trial.label for trial in history]
    uniform = [label for label in labels if label.startswith("uniform")]
    assert uniform == labels[: len(uniform)] == [f"uniform at level {level}" for level in range(len(uniform))]
    assert labels[len(uniform) : INITIAL] == ["random"] * (INITIAL - len(uniform))
    assert labels[INITIAL:] == [f"batch {1 + place // BATCH}" for place in range(4 * BATCH)]
    sizes = [trial.size_bytes for trial in history[len(uniform) : INITIAL]]
    assert min(sizes) < 0.8 * JOINT.budget_bytes and max(sizes) > 1.2 * JOINT.budget_bytes


def test_a_sampler_made_anew_goes_on_alike(history: list[Trial]) -> None:
    """Within a batch as well; another seed does not."""
    for cut in (0, 5, INITIAL - 1, INITIAL, INITIAL + 3, INITIAL + BATCH, len(history) - 1):
        assert samplers["amq"](JOINT).propose(begun(cut), history[:cut]).plan == history[cut].plan
    cut = INITIAL + 1
    assert samplers["amq"](replace(JOINT, seed=1)).propose(begun(cut), history[:cut]).plan != history[cut].plan


def test_a_plan_that_fails_is_replaced_within_its_batch(history: list[Trial]) -> None:
    """The batch keeps its size."""
    sampler, known, failed = samplers["amq"](JOINT), list(history[:INITIAL]), frozenset[Plan]()
    labels = []
    for number in range(INITIAL, INITIAL + BATCH + 2):
        asked = sampler.propose(begun(number), known, failed)
        assert asked.plan not in failed
        labels.append(asked.label)
        if number in (INITIAL, INITIAL + 3):
            failed |= {asked.plan}
        else:
            known.append(measured(JOINT, asked.plan, number))
    assert labels == ["batch 1"] * (BATCH + 2)
    assert sampler.propose(begun(99), known, failed).label == "batch 2"


def test_it_finds_more_of_the_front_than_random_plans_do() -> None:
    """On a space that is small enough to enumerate."""
    plans = toys.all_plans(SPACE)
    everything = [measured(PROBLEM, plan, number) for number, plan in enumerate(plans)]
    corner = (2.0 * PROBLEM.budget_bytes, 1.0)

    def share(trials: Sequence[Trial]) -> float:
        volume, whole = (
            hypervolume([(r.size_bytes, np.log(r.loss)) for r in rs], corner) for rs in (trials, everything)
        )
        return volume / whole

    generator = np.random.default_rng(0)
    drawn = [everything[place] for place in generator.choice(len(plans), 50, replace=False)]
    found = share(searched(PROBLEM, 50))
    assert found > 0.97
    assert found > share(drawn) + 0.05


def test_the_seeds_of_a_study_are_known() -> None:
    """The surrogate goes through them, and none is proposed again."""
    plans = [
        PROBLEM.solver.solve(PROBLEM.losses, budget)
        for budget in np.linspace(PROBLEM.budget_bytes, 2 * PROBLEM.budget_bytes, 5).astype(int)
    ]
    seeds = [measured(PROBLEM, plan, number, "solver") for number, plan in enumerate(dict.fromkeys(plans))]
    sampler, history = samplers["amq"](PROBLEM), list(seeds)
    for number in range(len(seeds), len(seeds) + INITIAL + BATCH):
        asked = sampler.propose(begun(number), history)
        assert asked.plan not in {trial.plan for trial in history}
        history.append(measured(PROBLEM, asked.plan, number))
    cold = searched(PROBLEM, INITIAL + BATCH)
    assert [r.plan for r in history[-BATCH:]] != [r.plan for r in cold[-BATCH:]]


def test_sensitive_sites_do_without_their_lowest_level() -> None:
    """Sites above twice the median; a plan within the budget must remain, and a small space keeps all levels."""
    only = {"linear": BITS[:3], "embedding": ["keep"], "ffn": ["keep"], "block": ["keep"]}
    for blocks in (4, 6):
        space = toys.toy_space(blocks=blocks, max_drops=0, choices=only)
        leaves = [site.name for site in space.inventory.leaves if site.kind == "linear"]
        weight = {name: 1 + 0.01 * place for place, name in enumerate(leaves)} | {leaves[3]: 2.5, leaves[5]: 1.9}
        losses = {
            (name, c): weight.get(name, 0) * 2.0**-place
            for name, options in space.options.items()
            for place, c in enumerate(options)
        }
        problem = replace(toys.problem_of(space, share=0.5), losses=losses)
        sampler = AmqSampler(problem)
        lowest = {site.name: low for site, low in zip(sampler.levels.sites, sampler.lowest, strict=True) if low}
        assert lowest == ({leaves[3]: 1} if blocks == 6 else {})
        taken = {str(sampler.propose(begun(number), []).plan[leaves[3]]) for number in range(20)}
        assert ("quantize bits=2" in taken) == (blocks == 4)
        smallest = problem.solver.smallest().size_bytes(space.inventory)
        assert not AmqSampler(replace(problem, budget_bytes=smallest)).lowest.any()


def test_the_subset_evens_the_front() -> None:
    """As well as the best of all subsets, or nearly."""
    generator = np.random.default_rng(0)
    for _ in range(10):
        sizes, front = generator.integers(0, 1000, 12), generator.integers(0, 1000, 5)

        def unevenness(places: Sequence[int], sizes: np.ndarray = sizes, front: np.ndarray = front) -> float:
            return float(np.diff(sorted([*front, *sizes[list(places)]])).std())

        best = min(unevenness(places) for places in combinations(range(12), 3))
        chosen = spread(sizes, front, 3)
        assert len(set(chosen)) == 3
        assert unevenness(chosen) <= 1.15 * best
    assert sorted(spread(np.array([1, 2]), np.array([3]), 5)) == [0, 1]
