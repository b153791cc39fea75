"""Linear relaxation of the parts of a knapsack that are not summed yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paredown.search.solver.partial_sums import States

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Completion:
    """Bounds and completes partial sums by the linear relaxation of the remaining parts.

    Each part starts at its cheapest choice and moves along its lower convex hull: to larger choices if room is left, to
    smaller ones if room is short. Taking the moves of all parts in order of cost per size solves the relaxation. It
    bounds every partial sum from below; truncated to whole moves, it is a solution.

    Args:
        parts: Parts of the knapsack, in the order in which they will be summed.
        price: Cost of a unit of unused room.
    """

    def __init__(self, parts: Sequence[States], price: float) -> None:
        self.price = price
        cheapest = [int(part.excess.argmin()) for part in parts]
        starts = [[p.losses[i], p.sizes[i], p.counted[i]] for p, i in zip(parts, cheapest, strict=True)]
        table = np.array([*starts, [0, 0, 0]], dtype=np.int64)
        self.starts: Integers = np.cumsum(table[::-1], axis=0)[::-1]
        counts = np.array([[p.counted.min(), p.counted.max()] for p in parts] + [[0, 0]], dtype=np.int64)
        self.counts: Integers = np.cumsum(counts[::-1], axis=0)[::-1]
        up: list[tuple[float, ...]] = []
        down: list[tuple[float, ...]] = []
        for turn, (part, start) in enumerate(zip(parts, cheapest, strict=True)):
            for moves, places in ((up, _hull(part, start, 1)), (down, _hull(part, start, -1))):
                for a, b in zip(places, places[1:], strict=False):
                    size, excess = abs(int(part.sizes[b] - part.sizes[a])), float(part.excess[b] - part.excess[a])
                    changes = (int(array[b] - array[a]) for array in (part.losses, part.counted))
                    moves.append((excess / size, turn, size, excess, *changes))
        self._up = _sorted([move for move in up if move[0] < price])
        self._down = _sorted(down)

    def bounds(self, states: States, turn: int, room: int) -> tuple[Floats, Floats, Integers]:
        """Bounds and solutions of each partial sum, completed by the parts from ``turn`` on.

        Returns:
            Lower bound on the final excess, with the cost of unused room (inf if the sum cannot fit); loss of a
            solution that contains the sum (inf if none is found); number of counted choices in that solution.
        """
        slack = (room - states.sizes - self.starts[turn, 1]).astype(np.float64)
        least, loss, counted = (np.zeros(len(states)) for _ in range(3))
        for moves, needed, side in ((self._up, slack, "right"), (self._down, -slack, "left")):
            size, excess, more_loss, more_counted = np.cumsum(moves[:, moves[0] >= turn][1:], axis=1)
            size, excess, more_loss, more_counted = (
                np.concatenate([[0.0], row]) for row in (size, excess, more_loss, more_counted)
            )
            here = np.flatnonzero(needed >= 0 if side == "right" else needed > 0)
            wanted = needed[here]
            whole = (
                np.searchsorted(size, wanted, side="right") - 1
                if side == "right"
                else np.searchsorted(size, wanted, side="left")
            )
            fits = whole < len(size)
            whole = np.minimum(whole, len(size) - 1)
            over = self.price * np.maximum(wanted - size[-1], 0.0) if side == "right" else np.where(fits, 0.0, np.inf)
            least[here] = np.interp(wanted, size, excess) + over
            loss[here] = np.where(fits, more_loss[whole], np.inf)
            counted[here] = more_counted[whole]
        solved = states.losses + self.starts[turn, 0] + loss
        return states.excess + least, solved, states.counted + self.starts[turn, 2] + counted.astype(np.int64)


def _hull(part: States, start: int, way: int) -> list[int]:
    """Vertices of the lower convex hull of excess over size, from ``start`` to larger (1) or smaller (-1) sizes."""
    sizes, excess = part.sizes.tolist(), part.excess.tolist()
    hull = [start]
    for place in sorted(
        (i for i in range(len(sizes)) if way * sizes[i] > way * sizes[start]), key=lambda i: (way * sizes[i], excess[i])
    ):
        if sizes[place] == sizes[hull[-1]]:
            continue
        while len(hull) > 1 and (excess[hull[-1]] - excess[hull[-2]]) * abs(sizes[place] - sizes[hull[-1]]) >= (
            excess[place] - excess[hull[-1]]
        ) * abs(sizes[hull[-1]] - sizes[hull[-2]]):
            hull.pop()
        hull.append(place)
    return hull


def _sorted(moves: list[tuple[float, ...]]) -> Floats:
    """Moves as ``(5, moves)``: turn, size, excess, loss and count of each, lowest cost per size first."""
    return np.array(sorted(moves), dtype=np.float64).reshape(-1, 6)[:, 1:].T
