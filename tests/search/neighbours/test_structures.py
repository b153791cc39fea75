"""Structures near others, and the plans that have them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from paredown.search.neighbours.structures import Structures
from paredown.search.solver.solver import Solver
from shared import toys

SPACE = toys.toy_space(max_drops=1)
LOSSES = toys.losses_of(SPACE)
STRUCTURES = Structures(Solver(SPACE))
PLANS = toys.all_plans(SPACE)


def test_the_plan_of_a_structure_is_the_best_that_has_it() -> None:
    """Every structure at several budgets, against the list of all plans."""
    inventory = SPACE.inventory
    sizes = {plan: plan.size_bytes(inventory) for plan in PLANS}
    found = {STRUCTURES.of(plan) for plan in PLANS}
    assert len(found) > 8
    for structure, share in itertools.product(found, (0.3, 0.5, 1.0)):
        budget = int(share * inventory.original_bytes)
        fitting = [plan for plan in PLANS if STRUCTURES.of(plan) == structure and sizes[plan] <= budget]
        plan = STRUCTURES.solved(structure, LOSSES, budget)
        assert (plan is None) == (not fitting)
        if plan:
            assert STRUCTURES.of(plan) == structure and sizes[plan] <= budget
            least = min(toys.sum_of(SPACE, other, LOSSES) for other in fitting)
            assert toys.sum_of(SPACE, plan, LOSSES) == pytest.approx(least, rel=1e-6)


def test_neighbours_differ_by_one_site_and_reach_every_structure() -> None:
    """Walking from one to the next, none that the space has is missed and none that it has not is met."""
    generator = np.random.default_rng(0)
    structure, met = STRUCTURES.of(PLANS[0]), set()
    for _ in range(2000):
        near = STRUCTURES.near(generator, structure)
        assert len({name for name, _ in near ^ structure}) <= 2 and abs(len(near) - len(structure)) <= 1
        structure = near
        met.add(structure)
    assert met == {STRUCTURES.of(plan) for plan in PLANS}


def test_where_nothing_can_be_overruled_a_structure_has_no_neighbours() -> None:
    plain = Structures(Solver(toys.toy_space(max_drops=0, choices={"ffn": ["keep"], "block": ["keep"]})))
    assert plain.near(np.random.default_rng(0), frozenset()) == frozenset()
