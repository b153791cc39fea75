"""The bound of a knapsack's partial sums against a list of all completions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.search.solver.completion_bound import Completion
from paredown.search.solver.partial_sums import States

TINY = 1e-9

choices = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 13)), min_size=1, max_size=4)


def part(rows: list[tuple[int, int]], price: float) -> States:
    """The choices of a node, ``(loss, size)``; the excess is above the cheapest at this price."""
    losses, sizes = np.array(rows, dtype=np.int64).T
    cost = losses + price * sizes
    return States(
        losses=losses,
        sizes=sizes,
        counted=np.zeros_like(losses),
        excess=cost - cost.min(),
        origin=((0, np.arange(len(rows))),),
    )


@given(st.lists(choices, min_size=1, max_size=3), st.floats(0, 8), st.integers(0, 45))
def test_no_completion_ends_with_less_than_the_bound(
    rows: list[list[tuple[int, int]]], price: float, room: int
) -> None:
    """For each choice of the first part, the others completing it; the room that is left over costs the price."""
    parts = [part(each, price) for each in rows]
    excess, losses, _ = Completion(parts, price).bounds(parts[0], 1, room)
    for first, (loss, size) in enumerate(rows[0]):
        ends = []
        for indices in product(*(range(len(each)) for each in rows[1:])):
            rest = [rows[turn][index] for turn, index in enumerate(indices, 1)]
            left = room - size - sum(s for _, s in rest)
            if left >= 0:
                above = sum(float(parts[turn].excess[index]) for turn, index in enumerate(indices, 1))
                ends.append((float(parts[0].excess[first]) + above + price * left, loss + sum(own for own, _ in rest)))
        assert excess[first] <= min((end for end, _ in ends), default=np.inf) + TINY
        if np.isfinite(losses[first]):  # a solution was seen: it is one of these
            assert losses[first] in {float(loss) for _, loss in ends}
        if all(len(each) == 1 for each in rows[1:]):  # nothing is left to decide: the bound is what it ends with
            assert excess[first] == pytest.approx(ends[0][0] if ends else np.inf)
