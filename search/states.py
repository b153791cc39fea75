"""Sums of choices that may still become the best solution of a knapsack."""

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
    """Choices of some nodes, summed; ``(m,)`` each.

    Attributes:
        losses: Sums.
        sizes: Sums.
        counted: Sums.
        excess: By how much each costs more than the cheapest, at the prices of the bound.
        origin: What each is made of: columns of a node, and indices into other states; -1 where it is not made of these.
    """

    losses: Integers
    sizes: Integers
    counted: Integers
    excess: Floats
    origin: tuple[tuple[int | States, Integers], ...]

    def __len__(self) -> int:
        return len(self.losses)

    def take(self, index: Integers) -> States:
        """Some of them."""
        origin = tuple((source, places[index]) for source, places in self.origin)
        return States(
            losses=self.losses[index],
            sizes=self.sizes[index],
            counted=self.counted[index],
            excess=self.excess[index],
            origin=origin,
        )

    def undominated(self) -> States:
        """Those that no other of the same count beats in loss and size; of equal ones the first. By count and size."""
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
        """Nodes and columns of one of them."""
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
    """Sums of one of each, among those whose excess is within the gap the ones that no other beats.

    Args:
        left: Undominated.
        right: Undominated, the fewer.
        gap: Most excess.
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
    """All of both."""
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
