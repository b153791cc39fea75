"""The solver against a list of all plans."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.search.solver.solver import Solver
from paredown.space.choice import Choice
from paredown.space.errors import BudgetError
from paredown.space.plan import Plan
from paredown.space.space import Space
from shared import toys

NETWORKS = {"ffn": ["prune-neurons sparsity=0.5", "drop"]}
SPACES = {drops: toys.toy_space(max_drops=drops, choices=NETWORKS) for drops in (0, 1)}
SOLVERS = {drops: Solver(space) for drops, space in SPACES.items()}
Losses = dict[tuple[str, Choice], float]


@cache
def listed(drops: int) -> tuple[list[Plan], np.ndarray, np.ndarray]:
    """All plans of a toy space, their bytes, and which (site, choice) each takes."""
    space, solver = SPACES[drops], SOLVERS[drops]
    plans = toys.all_plans(space)
    takes = np.zeros((len(plans), len(solver.variables)))
    column = {variable: i for i, variable in enumerate(solver.variables)}
    for row, plan in enumerate(plans):
        for site, choice in plan.decided(space.inventory):
            takes[row, column[site.name, choice]] = 1
    return plans, np.array([plan.size_bytes(space.inventory) for plan in plans]), takes


def losses_from(solver: Solver, values: list[int]) -> Losses:
    return {variable: float(value) for variable, value in zip(solver.variables, values, strict=True)}


drops = st.sampled_from([0, 1])
few = st.lists(
    st.sampled_from([0, 0, 1, 2, 3, 50]), min_size=len(SOLVERS[0].variables), max_size=len(SOLVERS[0].variables)
)
shares = st.floats(0, 1)


def budget_at(drops: int, share: float) -> int:
    sizes = listed(drops)[1]
    return int(sizes.min() + share * (sizes.max() - sizes.min()))


@pytest.mark.parametrize("drops", [0, 1])
def test_bytes_are_those_of_the_layout(drops: int) -> None:
    plans, sizes, _ = listed(drops)
    assert [SOLVERS[drops].size_bytes(plan) for plan in plans] == sizes.tolist()


def test_every_plan_is_listed_once() -> None:
    """2 embeddings x (3 attentions x (9 + 1) networks), squared; or one of both blocks with one of 3 + 1 drops."""
    assert len(listed(1)[0]) == len(set(listed(1)[0])) == 2 * (30**2 + 2 * 30 * 4)
    assert len(listed(0)[0]) == 2 * 30**2


@settings(max_examples=25)
@given(drops, few, shares)
def test_no_listed_plan_within_the_budget_is_better(drops: int, values: list[int], share: float) -> None:
    """Least loss; the budget is never exceeded; no site could take fewer bytes for the same loss."""
    solver, (_, sizes, takes) = SOLVERS[drops], listed(drops)
    losses, budget = losses_from(solver, values), budget_at(drops, share)
    plan = solver.solve(losses, budget)
    totals = takes @ np.array([losses[variable] for variable in solver.variables])
    within = sizes <= budget
    assert plan.size_bytes(solver.space.inventory) <= budget
    assert solver.space.allows(plan)
    assert toys.sum_of(solver.space, plan, losses) == pytest.approx(totals[within].min(), abs=1e-9)
    weight = dict(zip(solver.variables, solver.sizes, strict=True))
    for site, choice in plan.decided(solver.space.inventory):
        for other in solver.space.options[site.name]:
            assert (
                losses[site.name, other] > losses[site.name, choice]
                or weight[site.name, other] >= weight[site.name, choice]
            )


@settings(max_examples=25)
@given(drops, st.integers(0, 1000), shares)
def test_real_losses_are_solved_exactly(drops: int, seed: int, share: float) -> None:
    solver, (_, sizes, takes) = SOLVERS[drops], listed(drops)
    losses, budget = toys.losses_of(solver.space, seed), budget_at(drops, share)
    totals = takes @ np.array([losses[variable] for variable in solver.variables])
    assert toys.sum_of(solver.space, solver.solve(losses, budget), losses) == pytest.approx(
        totals[sizes <= budget].min(), rel=1e-5
    )


@settings(max_examples=25)
@given(drops, few, shares, shares)
def test_more_bytes_never_predict_more_loss(drops: int, values: list[int], one: float, other: float) -> None:
    solver = SOLVERS[drops]
    losses = losses_from(solver, values)
    small, large = (solver.solve(losses, budget_at(drops, share)) for share in sorted((one, other)))
    assert toys.sum_of(solver.space, large, losses) <= toys.sum_of(solver.space, small, losses)


@settings(max_examples=25)
@given(drops, few, shares)
def test_the_same_question_has_one_answer(drops: int, values: list[int], share: float) -> None:
    """A new solver gives it too."""
    losses, budget = losses_from(SOLVERS[drops], values), budget_at(drops, share)
    assert SOLVERS[drops].solve(losses, budget) == Solver(toys.toy_space(max_drops=drops, choices=NETWORKS)).solve(
        losses, budget
    )


@pytest.mark.parametrize("drops", [0, 1])
def test_the_smallest_plan_is_the_smallest_listed(drops: int) -> None:
    """A budget of its very bytes is met; one byte less is refused, and the smallest is named."""
    solver, smallest = SOLVERS[drops], int(listed(drops)[1].min())
    losses = toys.losses_of(solver.space)
    assert solver.smallest().size_bytes(solver.space.inventory) == smallest
    assert solver.solve(losses, smallest).size_bytes(solver.space.inventory) == smallest
    refused = f"nothing meets the budget of {smallest - 1:,} bytes: the smallest plan of the space has {smallest:,}"
    with pytest.raises(BudgetError, match=refused):
        solver.solve(losses, smallest - 1)


def test_a_front_holds_each_plan_once_in_the_order_of_the_budgets() -> None:
    solver = SOLVERS[1]
    losses = toys.losses_of(solver.space)
    budgets = [budget_at(1, share) for share in (0.5, 0.1, 0.5, 1.0)]
    front = solver.front(losses, budgets)
    assert front == [solver.solve(losses, budgets[i]) for i in (0, 1, 3)]


def test_a_large_model_is_solved_within_its_budget() -> None:
    """Many sites and sizes that share no large unit: rounding in the solver never overruns."""
    space: Space = toys.toy_space(
        blocks=40, max_drops=4, choices={"linear": [f"quantize bits={b} group_size=32" for b in (2, 3, 4, 5, 6, 8)]}
    )
    solver, losses = Solver(space), toys.losses_of(space)
    smallest = solver.smallest().size_bytes(space.inventory)
    for share in (0.0, 0.01, 0.2, 0.7):
        budget = int(smallest + share * (space.inventory.original_bytes - smallest))
        assert solver.solve(losses, budget).size_bytes(space.inventory) <= budget
