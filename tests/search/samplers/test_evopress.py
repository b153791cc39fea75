"""Evolution by level switches, chosen in steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import optuna
import pytest

from paredown.search.samplers import Problem, samplers
from paredown.search.samplers.evopress import OFFSPRING, SURVIVORS
from paredown.search.trial import Reading, Trial, best_within
from paredown.space.plan import Plan
from shared import toys

BITS = [f"quantize bits={bits}" for bits in (2, 3, 4, 6, 8)]
SPACE = toys.toy_space(blocks=4, max_drops=1, choices={"linear": BITS})
PROBLEM = replace(toys.problem_of(SPACE, share=0.3), sequences=16)
NAMES = ["evopress", "evopress-solver"]
World = Callable[[Plan], Sequence[float]]


def begun(number: int) -> optuna.Trial:
    """A trial that has begun; the sampler reads only its number."""
    return cast(optuna.Trial, optuna.trial.FixedTrial({}, number))


def world(plan: Plan) -> Sequence[float]:
    """Loss of each sequence: no two see a site alike."""
    return [
        sum(
            PROBLEM.losses[s.name, c] * (1 + 0.5 * np.sin(place * 7 + len(s.name) + ord(s.name[-1])))
            for s, c in plan.decided(SPACE.inventory)
        )
        for place in range(16)
    ]


def measured(plan: Plan, number: int, name: str, count: int | None, label: str = "") -> Trial:
    sums = tuple(world(plan))[:count]
    trial = toys.trial_of(SPACE, plan, float(np.mean(sums)), number)
    return replace(trial, origin=name, label=label, read=Reading(sequences=sums, whole=count is None))


def evolved(name: str, length: int, trials: Sequence[Trial] = (), problem: Problem = PROBLEM) -> list[Trial]:
    sampler, history = samplers[name](problem), list(trials)
    while len(history) < length:
        asked = sampler.propose(begun(len(history)), history)
        history.append(measured(asked.plan, len(history), name, asked.sequences, asked.label))
    return history


@pytest.fixture(scope="module", params=NAMES)
def history(request: pytest.FixtureRequest) -> list[Trial]:
    return evolved(request.param, 120)


def test_offspring_are_measured_in_steps(history: list[Trial]) -> None:
    """All plans are measured on an eighth, the best four on half, the best two of those on all.

    The best of these and their parent is next.
    """
    generations = [[r for r in history if r.label == f"generation {number}"] for number in range(1, 5)]
    for before, trials in zip(
        [[r for r in history if r.label == "generation 0"], *generations], generations, strict=False
    ):
        steps = [[r for r in trials if len(r.read.sequences) == count] for count in (2, 8, 16)]
        assert [len(step) for step in steps] == [OFFSPRING, *SURVIVORS[:2]]
        for step, following in zip(steps, steps[1:], strict=False):
            best = sorted(step, key=lambda trial: sum(trial.read.sequences))[: len(following)]
            assert {trial.plan for trial in best} == {trial.plan for trial in following}
        assert before


def test_each_generation_descends_from_the_best_so_far(history: list[Trial]) -> None:
    """Elitism: the best plan that was measured on all sequences is but a few levels away."""
    last = max(int(r.label.split()[1]) for r in history)
    for number in range(2, last + 1):
        first = next(place for place, r in enumerate(history) if r.label == f"generation {number}")
        parent = min((r for r in history[:first] if r.read.whole), key=lambda r: r.loss).plan
        children = [r.plan for r in history if r.label == f"generation {number}" and len(r.read.sequences) == 2]
        switched = [
            c
            for c in children
            if {s.name for s, _ in c.decided(SPACE.inventory)} == {s.name for s, _ in parent.decided(SPACE.inventory)}
        ]
        assert switched
        shared = [sum(c[s.name] == parent[s.name] for s, _ in parent.decided(SPACE.inventory)) for c in switched]
        assert max(shared) >= len(list(parent.decided(SPACE.inventory))) - 3


def test_every_plan_is_allowed_and_within_the_budget(history: list[Trial]) -> None:
    assert all(SPACE.allows(trial.plan) and trial.size_bytes <= PROBLEM.budget_bytes for trial in history)
    assert len({(trial.plan, len(trial.read.sequences)) for trial in history}) == len(history)


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_made_anew_goes_on_alike(name: str) -> None:
    """At every step of the funnel; another seed does not."""
    whole = evolved(name, 60)
    for cut in (1, 7, 17, 21, 23, 40, 59):
        asked = samplers[name](PROBLEM).propose(begun(cut), whole[:cut])
        assert (asked.plan, asked.label) == (whole[cut].plan, whole[cut].label)
    other = evolved(name, 60, problem=replace(PROBLEM, seed=1))
    assert [r.plan for r in other] != [r.plan for r in whole]


def test_an_other_history_is_read_from_its_beginning() -> None:
    """What a sampler was asked before does not matter."""
    sampler = samplers["evopress"](PROBLEM)
    whole = evolved("evopress", 50)
    for cut in (49, 3, 30):
        assert sampler.propose(begun(cut), whole[:cut]).plan == whole[cut].plan


@pytest.mark.parametrize("name", NAMES)
def test_evolution_gains(name: str) -> None:
    """On what it was started from, within few generations, and ends near the best plan that there is."""
    found = evolved(name, 250)
    first = next(trial for trial in found if trial.read.whole)
    best = best_within([trial for trial in found if trial.read.whole], PROBLEM.budget_bytes)
    bound = toys.sum_of(SPACE, PROBLEM.solver.solve(PROBLEM.losses, PROBLEM.budget_bytes), PROBLEM.losses)
    assert best is not None and best.loss < first.loss
    assert best.loss < 1.3 * bound


def test_it_starts_from_the_best_uniform_plan_that_fits() -> None:
    """Unless a plan that is uniform but for the last bytes is better.

    A plan above the budget, or one that is not uniform, is never the start.
    """
    plans = [
        PROBLEM.solver.solve(PROBLEM.losses, budget) for budget in (PROBLEM.budget_bytes, 3 * PROBLEM.budget_bytes)
    ]
    seeds = [measured(plan, number, "uniform", None) for number, plan in enumerate(plans)]
    history = evolved("evopress", 40, seeds)
    first = next(r for r in history if r.label == "generation 1")
    assert first.plan not in plans
    assert (
        min(
            (r for r in history[: first.number] if r.read.whole and r.size_bytes <= PROBLEM.budget_bytes),
            key=lambda r: r.loss,
        )
        == seeds[0]
    )
    shared = [r.plan for r in history if r.label == "generation 1"]
    assert any(sum(a != b for a, b in zip(plan.entries, plans[0].entries, strict=False)) <= 4 for plan in shared)


def test_what_failed_is_taken_for_the_worst() -> None:
    """And not asked for again."""
    sampler, history, failed = samplers["evopress"](PROBLEM), list[Trial](), frozenset[Plan]()
    for number in range(80):
        asked = sampler.propose(begun(number), history, failed)
        assert asked.plan not in failed
        if number % 5 == 3:
            failed |= {asked.plan}
        else:
            history.append(measured(asked.plan, number, "evopress", asked.sequences))
    assert max(len(r.read.sequences) for r in history) == 16


def test_a_space_without_a_second_plan_is_searched_to_its_end() -> None:
    space = toys.toy_space(
        max_drops=0, choices={"linear": ["keep"], "embedding": ["keep"], "ffn": ["keep"], "block": ["keep"]}
    )
    problem = toys.problem_of(space, share=1.0)
    for name in NAMES:
        sampler = samplers[name](problem)
        only = sampler.propose(begun(0), [])
        assert only.sequences is None
        trial = toys.trial_of(space, only.plan, 1.0)
        assert sampler.propose(begun(1), [trial]).label == "nothing new to try"
