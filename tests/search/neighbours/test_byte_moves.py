"""Plans near others."""

from __future__ import annotations

import numpy as np
import pytest

from paredown.search.neighbours.byte_moves import SITES, Moves
from paredown.search.solver.solver import Solver
from paredown.space.plan import Plan
from shared import toys

SPACE = toys.toy_space(blocks=3)
LOSSES = toys.losses_of(SPACE)
SOLVER = Solver(SPACE)
PARENTS = [SOLVER.solve(LOSSES, int(SPACE.inventory.original_bytes * share)) for share in (0.3, 0.5, 0.8)]


def test_a_move_is_a_plan_of_the_space_within_its_room() -> None:
    """Bytes and loss are those of the plan that it makes; few sites differ."""
    moves, inventory = Moves(SOLVER, lambda _: LOSSES), SPACE.inventory
    parents = {plan: plan.size_bytes(inventory) for plan in PARENTS}
    room = parents[PARENTS[1]]
    drawn = list(moves.drawn(np.random.default_rng(0), parents, room, 600))
    assert len(drawn) > 30
    assert {PARENTS.index(move.parent) for move in drawn} >= {0, 1}
    for move in drawn:
        plan = moves.plan(move)
        assert SPACE.allows(plan)
        assert plan == Plan.of(inventory, plan.choices)
        assert plan.size_bytes(inventory) == move.size_bytes <= room
        assert toys.sum_of(SPACE, plan, LOSSES) == pytest.approx(move.loss)
        before, after = (dict(p.decided(inventory)) for p in (move.parent, plan))
        assert before.keys() == after.keys()
        assert 1 <= sum(before[site] != after[site] for site in before) <= max(SITES)


def test_moves_are_judged_by_the_losses_at_the_size_of_their_parent() -> None:
    parents = {plan: plan.size_bytes(SPACE.inventory) for plan in PARENTS}
    moves = Moves(SOLVER, lambda size: {pair: loss * size for pair, loss in LOSSES.items()})
    drawn = list(moves.drawn(np.random.default_rng(0), parents, max(parents.values()), 300))
    assert len({move.parent for move in drawn}) == len(PARENTS)
    for move in drawn:
        assert move.loss == pytest.approx(toys.sum_of(SPACE, moves.plan(move), LOSSES) * parents[move.parent])


def test_where_nothing_is_to_decide_there_are_no_moves() -> None:
    only = toys.toy_space(
        max_drops=0, choices={"linear": ["keep"], "embedding": ["keep"], "ffn": ["keep"], "block": ["keep"]}
    )
    plan = Solver(only).smallest()
    assert not list(
        Moves(Solver(only), lambda _: toys.losses_of(only)).drawn(np.random.default_rng(0), {plan: 1}, 10**9, 50)
    )
    assert not list(Moves(SOLVER, lambda _: LOSSES).drawn(np.random.default_rng(0), {}, 10**9, 50))
