"""The plans that every study measures first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paredown.search.trials.first_plans import seed_plans
from paredown.space.errors import BudgetError
from shared import toys

SPACE = toys.toy_space()
PROBLEM = toys.problem_of(SPACE)


def test_the_first_is_the_solvers_plan_at_the_budget() -> None:
    first = seed_plans(PROBLEM)[0]
    assert first.plan == PROBLEM.solver.solve(PROBLEM.losses, PROBLEM.budget_bytes)
    assert first.label == "solver at the budget"
    assert first.plan.size_bytes(SPACE.inventory) <= PROBLEM.budget_bytes


def test_the_others_span_the_front() -> None:
    """From the smallest plan to twice the budget, each once, each predicted as a sum; fewer bytes, more loss."""
    seeds = seed_plans(PROBLEM)
    assert len({seed.plan for seed in seeds}) == len(seeds) > 3
    sizes = [seed.plan.size_bytes(SPACE.inventory) for seed in seeds]
    assert min(sizes) == PROBLEM.solver.smallest().size_bytes(SPACE.inventory)
    assert PROBLEM.budget_bytes < max(sizes) <= 2 * PROBLEM.budget_bytes
    for seed in seeds:
        assert seed.predicted_loss == pytest.approx(toys.sum_of(SPACE, seed.plan, PROBLEM.losses))
    along = sorted(zip(sizes, (seed.predicted_loss or 0.0 for seed in seeds), strict=True))
    assert [loss for _, loss in along] == sorted((loss for _, loss in along), reverse=True)


def test_the_smallest_budget_that_can_be_met_has_seeds() -> None:
    smallest = PROBLEM.solver.smallest().size_bytes(SPACE.inventory)
    tight = replace(PROBLEM, budget_bytes=smallest)
    assert seed_plans(tight)[0].plan.size_bytes(SPACE.inventory) == smallest
    with pytest.raises(BudgetError, match=f"the smallest plan of the space has {smallest:,}"):
        seed_plans(replace(PROBLEM, budget_bytes=smallest - 1))
    loose = replace(PROBLEM, budget_bytes=2 * SPACE.inventory.original_bytes)
    assert seed_plans(loose)[0].predicted_loss == 0
