"""Exact solver for the multiple-choice knapsack on a forest: branch and bound with dynamic programming."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np

from paredown.search.solver.core import Core, TooManyError
from paredown.search.solver.forest import Bound, Forest, Part, Pick, bound
from paredown.space.system.interruption import stop_if_asked

MOST_STATES = 10_000
"""Most partial sums that the dynamic programming holds; above that, the solver branches on a node."""


def solve(forest: Forest, room: int, most_states: int = MOST_STATES) -> Pick | None:
    """The solution of least loss within the room; ties go to the smallest. None if nothing fits. Deterministic.

    Branch and bound. At the prices of the bound, a choice can improve on the best known solution only if it costs at
    most the gap between solution and bound more than its node's cheapest choice. If few such choices remain, dynamic
    programming over them closes the gap. If many remain, the solver branches on a node.

    Args:
        forest: Nodes and their choices.
        room: Most size of a solution.
        most_states: Most partial sums that the dynamic programming holds.

    Source:
        The core and its bound: Pisinger, 1995, "A minimal algorithm for the multiple-choice knapsack problem", European
        Journal of Operational Research 83.
    """
    best: Pick | None = None
    queue: list[tuple[float, int, Part, Bound]] = []
    parts, made = [forest.whole], 0
    while parts or queue:
        stop_if_asked()
        for part in parts:
            if (least := bound(forest, part, room)) is None:
                continue
            made += 1
            heapq.heappush(queue, (least.loss, made, part, least))
            for pick in least.picks:
                best = better(best, improved(forest, part, pick, room))
        if not queue:
            break
        _, _, part, least = heapq.heappop(queue)
        core = Core(forest, part, least, room, best, most_states)
        if core.gap < 0:
            break
        try:
            best, parts = better(best, core.solve()), []
        except TooManyError:
            parts = list(halves(forest, part, *core.undecided()))
    return best


def better(one: Pick | None, other: Pick | None) -> Pick | None:
    """The solution of less loss; ties go to the smaller, then to the first."""
    if one is None or other is None:
        return one or other
    return other if (other.loss, other.size) < (one.loss, one.size) else one


def improved(forest: Forest, part: Part, pick: Pick, room: int) -> Pick | None:
    """A solution repaired and improved by local search; None if no single change makes it fit.

    One change brings an oversized solution into the room. Then single nodes change their choice as long as loss falls.
    """
    if pick.counted > forest.most_counted:
        return None
    places, slack = pick.places.copy(), room - pick.size
    nodes = np.flatnonzero(places >= 0)
    rows = np.arange(len(nodes))
    at = rows, places[nodes]
    losses, sizes, counted = (array[nodes] for array in (forest.losses, forest.sizes, forest.counted))
    losses, sizes = losses - losses[at][:, None], sizes - sizes[at][:, None]
    never = np.iinfo(np.int64).max
    losses = np.where(part.offered[nodes] & ~(counted & ~counted[at][:, None]), losses, never)
    while True:
        gains = np.where(sizes <= slack, losses, never)
        best = int(gains.argmin())
        gain, (row, place) = gains.flat[best], divmod(best, gains.shape[1])
        if gain == never or (slack >= 0 and gain >= 0):
            return forest.picked(places) if slack >= 0 else None
        slack -= sizes[row, place]
        places[nodes[row]] = place
        losses[row] = np.where(losses[row] == never, never, losses[row] - gain)
        sizes[row] -= sizes[row, place]


def halves(forest: Forest, part: Part, node: int, place: int) -> Iterator[Part]:
    """Two branches: solutions in which a node takes choice ``place`` (any choice of its own if -1), and all others."""
    without, taken = part.offered.copy(), part.offered.copy()
    if place >= 0:
        without[node, place] = False
        taken[node] = False
        taken[node, place] = True
    else:
        without[node] = False
    closed = part.is_open.copy()
    closed[node] = False
    above = forest.parents[node]
    while above >= 0:
        taken[above] = False
        above = forest.parents[above]
    yield Part(offered=taken, is_open=closed)
    yield Part(offered=without, is_open=part.is_open)
