"""The exact knapsack against a list of all solutions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.search.solver.branch_and_bound import MOST_STATES, solve
from paredown.search.solver.forest import Forest, bound

Solution = tuple[int, int, int, dict[int, int]]
"""Loss, size, how many are counted, and the column of each node that takes a choice."""

WIDTH = 3
losses = st.sampled_from([0, 0, 1, 1, 2, 3, 7, 40, -1])
sizes = st.sampled_from([0, 1, 1, 2, 3, 5, 8, 13, -2])
leaf = st.lists(st.tuples(losses, sizes, st.just(False)), min_size=1, max_size=WIDTH)
node = st.lists(st.tuples(losses, sizes, st.booleans()), max_size=WIDTH)
trees: st.SearchStrategy[Any] = st.recursive(
    leaf.map(lambda own: (own, [])),
    lambda below: st.tuples(node, st.lists(below, min_size=1, max_size=3)),
    max_leaves=4,
)


@st.composite
def forests(draw: st.DrawFn) -> Forest:
    """Some trees of choices, with ties and duplicates, choices that cost nothing, and sizes below zero."""
    parents: list[int] = []
    rows: list[list[tuple[int, int, bool]]] = []

    def grow(tree: Any) -> int:
        own, children = tree
        roots = [grow(child) for child in children]
        parents.append(-1)
        rows.append(own)
        for root in roots:
            parents[root] = len(rows) - 1
        return len(rows) - 1

    for tree in draw(st.lists(trees, min_size=1, max_size=3)):
        grow(tree)
    table = np.array([[*row, *[(99, -99, True)] * (WIDTH - len(row))] for row in rows], dtype=np.int64)
    offered = np.array([[place < len(row) for place in range(WIDTH)] for row in rows])
    return Forest(
        parents=np.array(parents),
        is_leaf=~np.isin(np.arange(len(rows)), parents),
        losses=table[:, :, 0],
        sizes=table[:, :, 1],
        offered=offered,
        counted=table[:, :, 2].astype(bool) & offered,
        most_counted=draw(st.integers(0, 2)),
    )


def listed(forest: Forest) -> list[Solution]:
    """All solutions that count no more than may be: of each root, its own choices or any of its children's together."""

    def joined(parts: tuple[Solution, ...]) -> Solution:
        chosen = {node: place for part in parts for node, place in part[3].items()}
        return sum(p[0] for p in parts), sum(p[1] for p in parts), sum(p[2] for p in parts), chosen

    def of(node: int) -> list[Solution]:
        own = [
            (int(forest.losses[node, c]), int(forest.sizes[node, c]), int(forest.counted[node, c]), {node: int(c)})
            for c in np.flatnonzero(forest.offered[node])
        ]
        return own if forest.is_leaf[node] else own + together(np.flatnonzero(forest.parents == node).tolist())

    def together(nodes: list[int]) -> list[Solution]:
        return [joined(parts) for parts in product(*(of(node) for node in nodes))]

    return [found for found in together(np.flatnonzero(forest.parents < 0).tolist()) if found[2] <= forest.most_counted]


def room_of(solutions: list[Solution], share: float) -> int:
    found = sorted({size for _, size, _, _ in solutions})
    return found[int(share * (len(found) - 1))]


@settings(max_examples=120)
@given(forests(), st.floats(0, 1), st.sampled_from([1, 2, 5, MOST_STATES]))
def test_no_listed_solution_is_better(forest: Forest, share: float, most_states: int) -> None:
    """Least loss, then least size, however few sums may be held: then nodes are decided one way and the other."""
    solutions = listed(forest)
    if not solutions:
        assert solve(forest, 1000, most_states) is None
        return
    room = room_of(solutions, share)
    found = solve(forest, room, most_states)
    assert found is not None
    places = {int(node): int(found.places[node]) for node in np.flatnonzero(found.places >= 0)}
    assert (found.loss, found.size, found.counted, places) in solutions
    assert (found.loss, found.size) == min((loss, size) for loss, size, _, _ in solutions if size <= room)
    again = solve(forest, room, most_states)
    assert again is not None and (again.places == found.places).all()


@settings(max_examples=50)
@given(forests())
def test_less_room_than_the_smallest_needs_has_no_solution(forest: Forest) -> None:
    solutions = listed(forest)
    assert solve(forest, min((size for _, size, _, _ in solutions), default=0) - 1) is None


@settings(max_examples=60)
@given(forests(), st.floats(0, 1))
def test_no_solution_is_better_than_the_bound(forest: Forest, share: float) -> None:
    """The bound is the linear relaxation's: its price times the missing room never exceeds the cost."""
    solutions = listed(forest)
    if not solutions:
        return
    for room in (room_of(solutions, share), room_of(solutions, 0.0)):
        found = bound(forest, forest.whole, room)
        assert found is not None and found.price >= 0 and found.counted_price >= 0
        for loss, size, counted, _ in solutions:
            assert (
                loss + found.price * (size - room) + found.counted_price * (counted - forest.most_counted)
                >= found.loss - 1e-9
            )


@pytest.mark.parametrize("draw", [lambda g: g.lognormal(0, 1, 12), lambda g: g.integers(1, 4, 12).astype(float)])
def test_many_leaves_are_solved_as_by_tables(draw: Callable[[np.random.Generator], np.ndarray]) -> None:
    """Sixty leaves under blocks that may be left out: the same as dynamic programming over every room and count."""
    generator = np.random.default_rng(0)
    blocks, inside, choices, most = 15, 4, 6, 3
    count = blocks * (inside + 1)
    is_leaf = np.arange(count) < blocks * inside
    parents = np.where(is_leaf, blocks * inside + np.arange(count) // inside, -1)
    table = np.zeros((2, count, choices), dtype=np.int64)
    for node in range(count):
        if is_leaf[node]:
            table[1, node] = np.sort(generator.choice(np.arange(1, 40), choices, replace=False))
            table[0, node] = 1000 * draw(generator)[:choices] * 4.0 ** -(table[1, node] / 10)
        else:
            table[:, node, 0] = int(generator.integers(800, 2500)), -int(generator.integers(0, 5))
    offered = np.broadcast_to(is_leaf[:, None], (count, choices)).copy()
    offered[:, 0] = True
    counted = offered & ~is_leaf[:, None]
    forest = Forest(
        parents=parents,
        is_leaf=is_leaf,
        losses=table[0],
        sizes=table[1],
        offered=offered,
        counted=counted,
        most_counted=most,
    )
    lowest, width = -5 * most, 40 * blocks * inside
    best = np.full(
        (most + 1, width), np.inf
    )  # least loss of exactly this size, counted from the lowest, by number of sites left out
    best[0, -lowest] = 0
    for block in range(blocks):
        inner = best
        for leaf in range(inside * block, inside * (block + 1)):
            shifted = [
                np.roll(inner, s, axis=1) + loss
                for loss, s in zip(table[0, leaf], table[1, leaf].tolist(), strict=True)
            ]
            inner = np.min(shifted, axis=0)
        loss, size = table[0, blocks * inside + block, 0], int(table[1, blocks * inside + block, 0])
        left_out = np.full_like(best, np.inf)
        left_out[1:] = np.roll(best[:-1], size, axis=1) + loss
        best = np.minimum(inner, left_out)
    for room in np.linspace(200, 1600, 15).astype(int).tolist():
        within = best[:, : room - lowest + 1]
        found = solve(forest, room)
        if not np.isfinite(within).any():
            assert found is None
            continue
        assert found is not None
        assert found.loss == within.min()
        assert found.size == np.flatnonzero((within == within.min()).any(0))[0] + lowest
