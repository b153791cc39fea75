"""Partial sums of a knapsack that can still lead to an optimal solution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class States:
    """Partial sums over some nodes; arrays of shape ``(m,)``.

    Attributes:
        losses: Sum of the losses.
        sizes: Sum of the sizes.
        counted: Number of counted choices.
        excess: Cost above the cheapest choices, at the prices of the bound.
        origin: Parts of each sum: a node with column indices, or other states with indices into them; -1 where a sum
            does not use that part.
    """

    losses: Integers
    sizes: Integers
    counted: Integers
    excess: Floats
    origin: tuple[tuple[int | States, Integers], ...]

    def __len__(self) -> int:
        return len(self.losses)

    def take(self, index: Integers) -> States:
        """The sums at these indices."""
        origin = tuple((source, places[index]) for source, places in self.origin)
        return States(
            losses=self.losses[index],
            sizes=self.sizes[index],
            counted=self.counted[index],
            excess=self.excess[index],
            origin=origin,
        )

    def undominated(self) -> States:
        """Sums not dominated in loss and size at equal count, the first of equal ones; sorted by count and size."""
        if len(self) < 2:
            return self
        keys = (self.losses, self.sizes, self.counted) if self.counted.any() else (self.losses, self.sizes)
        order = np.lexsort(keys)
        losses, counted = self.losses[order], self.counted[order]
        stays = np.zeros(len(order), dtype=bool)
        starts = [0, *(np.flatnonzero(np.diff(counted)) + 1).tolist(), len(order)]
        for start, end in pairwise(starts):
            least = np.minimum.accumulate(losses[start:end])
            stays[start] = True
            stays[start + 1 : end] = losses[start + 1 : end] < least[:-1]
        return self.take(order[stays])

    def choices(self, index: int) -> Iterator[tuple[int, int]]:
        """Nodes and columns that the sum at ``index`` consists of."""
        pending: list[tuple[States, int]] = [(self, index)]
        while pending:
            states, at = pending.pop()
            for source, places in states.origin:
                if places[at] < 0:
                    continue
                if isinstance(source, States):
                    pending.append((source, int(places[at])))
                else:
                    yield source, int(places[at])


def added(left: States, right: States, gap: float) -> States:
    """Undominated sums of one state from each side whose excess is within the gap.

    Args:
        left: Undominated states.
        right: Undominated states; pass the shorter side here.
        gap: Largest excess.
    """
    near = np.flatnonzero(right.excess <= gap - left.excess.min(initial=np.inf))
    pairs = [(np.flatnonzero(left.excess <= gap - right.excess[place]), place) for place in near]
    of_left = np.concatenate([np.zeros(0, dtype=np.int64), *(index for index, _ in pairs)])
    of_right = np.concatenate([np.zeros(0, dtype=np.int64), *(np.full(len(index), place) for index, place in pairs)])
    sums = States(
        losses=left.losses[of_left] + right.losses[of_right],
        sizes=left.sizes[of_left] + right.sizes[of_right],
        counted=left.counted[of_left] + right.counted[of_right],
        excess=left.excess[of_left] + right.excess[of_right],
        origin=((left, of_left), (right, of_right)),
    )
    return sums if len(near) < 2 else sums.undominated()


def either(left: States, right: States) -> States:
    """The states of both, concatenated."""
    nowhere = [np.full(len(states), -1) for states in (left, right)]
    return States(
        losses=np.concatenate([left.losses, right.losses]),
        sizes=np.concatenate([left.sizes, right.sizes]),
        counted=np.concatenate([left.counted, right.counted]),
        excess=np.concatenate([left.excess, right.excess]),
        origin=(
            (left, np.concatenate([np.arange(len(left)), nowhere[1]])),
            (right, np.concatenate([nowhere[0], np.arange(len(right))])),
        ),
    )
