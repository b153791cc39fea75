"""Multiple-choice knapsack on a forest, and its Lagrangian bounds.

Each leaf takes one choice, unless a node above it takes one that replaces all leaves below that node.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

CLOSE = 1e-12
"""Relative rounding error allowed in a sum of floats."""

STEPS = 100
"""Most steps to the best price; about ten are usual. The bound is valid after any number of steps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Forest:
    """Nodes, children before parents, with their choices; ``(n, c)`` = nodes x choices, rows padded.

    Attributes:
        parents: Index of each node's parent, ``(n,)``; -1 at a root.
        is_leaf: Whether a node must take a choice of its own unless a node above it does, ``(n,)``.
        losses: Loss of each choice, ``(n, c)``; integers, so that sums are exact.
        sizes: Size of each choice, ``(n, c)``.
        offered: Whether the choice exists, ``(n, c)``; false in the padding.
        counted: Whether the choice counts towards ``most_counted``, ``(n, c)``; false at leaves.
        most_counted: Most counted choices in a solution.
    """

    parents: Integers
    is_leaf: Flags
    losses: Integers
    sizes: Integers
    offered: Flags
    counted: Flags
    most_counted: int

    @cached_property
    def levels(self) -> list[tuple[Integers, Integers]]:
        """Inner nodes by height, lowest first; each level as its nodes and their children."""
        height = np.zeros(len(self.parents), dtype=np.int64)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                height[parent] = max(height[parent], height[node] + 1)
        nodes = [np.flatnonzero(~self.is_leaf & (height == level)) for level in range(int(height.max(initial=0)) + 1)]
        return [(level, np.flatnonzero(np.isin(self.parents, level))) for level in nodes if len(level)]

    @cached_property
    def _floats(self) -> tuple[Floats, Floats, Floats]:
        return self.losses.astype(np.float64), self.sizes.astype(np.float64), self.counted.astype(np.float64)

    def costs(self, part: Part, weights: tuple[float, float, float]) -> Floats:
        """Weighted sum of loss, size and count of each choice of a part, ``(n, c)``; inf where there is no choice."""
        total = np.full(self.losses.shape, np.inf)
        terms = [weight * term for weight, term in zip(weights, self._floats, strict=True) if weight]
        np.copyto(total, sum(terms[1:], terms[0]), where=part.offered)
        return total

    def least(self, part: Part, costs: Floats) -> tuple[Floats, Floats]:
        """Least cost of each node's subtree, and of its children together; both ``(n,)``, inf if not allowed."""
        value, below = costs.min(1), np.full(len(costs), np.inf)
        for nodes, children in self.levels:
            sums = np.bincount(self.parents[children], weights=value[children], minlength=len(costs))[nodes]
            below[nodes] = np.where(part.is_open[nodes], sums, np.inf)
            value[nodes] = np.minimum(value[nodes], below[nodes])
        return value, below

    def pick(self, part: Part, weights: tuple[float, float, float]) -> Pick | None:
        """The solution of least cost under these weights; None if the part has none. Ties go to the first choice."""
        costs = self.costs(part, weights)
        value, below = self.least(part, costs)
        if not np.isfinite(value[self.parents < 0]).all():
            return None
        places = costs.argmin(1)
        free = np.ones(len(costs), dtype=bool)
        takes = self.is_leaf | (value < below)
        for nodes, children in reversed(self.levels):
            passed = np.zeros(len(costs), dtype=bool)
            passed[nodes] = free[nodes] & ~takes[nodes]
            free[children] = passed[self.parents[children]]
        return self.picked(np.where(free & takes, places, -1))

    def picked(self, places: Integers) -> Pick:
        """The solution that takes these choices: column per node, ``(n,)``, -1 for none."""
        nodes = np.flatnonzero(places >= 0)
        at = nodes, places[nodes]
        return Pick(
            places=places,
            loss=int(self.losses[at].sum()),
            size=int(self.sizes[at].sum()),
            counted=int(self.counted[at].sum()),
        )

    @property
    def whole(self) -> Part:
        """The part that contains all solutions."""
        return Part(offered=self.offered, is_open=~self.is_leaf)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """A subset of the solutions of a forest.

    Attributes:
        offered: Choices that the solutions may take, ``(n, c)``.
        is_open: Inner nodes that may take no choice and leave it to their children, ``(n,)``.
    """

    offered: Flags
    is_open: Flags


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pick:
    """A solution and its sums.

    Attributes:
        places: Column of the choice that each node takes, ``(n,)``; -1 if it takes none.
        loss: Sum of the losses.
        size: Sum of the sizes.
        counted: Number of counted choices.
    """

    places: Integers
    loss: int
    size: int
    counted: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bound:
    """Lagrangian lower bound on the loss of any solution within a room; as tight as the linear relaxation.

    Attributes:
        loss: Lower bound on the loss.
        price: Multiplier of the size: loss saved per unit of room.
        counted_price: Multiplier of the count: loss saved per further counted choice.
        picks: Solutions that the bound is made of, and one of least cost at these prices.
    """

    loss: float
    price: float
    counted_price: float
    picks: tuple[Pick, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Mix:
    """One solution, or a mixture of two whose mean count equals the limit.

    Attributes:
        cost: Lower bound on the cost of any solution that keeps to the limit on counted choices.
        loss: Loss of the mixture.
        size: Size of the mixture.
        counted_price: Multiplier of the count: cost saved per further counted choice.
        picks: The mixed solutions.
    """

    cost: float
    loss: float
    size: float
    counted_price: float
    picks: tuple[Pick, ...]


def bound(forest: Forest, part: Part, room: int) -> Bound | None:
    """The bound of a part; None if no solution of the part fits in the room.

    Each step sets the price at which the solutions just above and just below the room cost the same, and minimises the
    cost at that price. The best price is found when no solution costs less than those two.
    """
    heavy, light = _mixed(forest, part, 1.0, 0.0), _mixed(forest, part, 0.0, 1.0)
    if heavy is None or light is None or light.cost > room:
        return None
    if heavy.size <= room:
        return Bound(loss=heavy.cost, price=0.0, counted_price=heavy.counted_price, picks=heavy.picks)
    best = Bound(loss=-np.inf, price=0.0, counted_price=0.0, picks=())
    for _ in range(STEPS):
        price = max(0.0, (light.loss - heavy.loss) / (heavy.size - light.size))
        found = _mixed(forest, part, 1.0, price)
        if found is None:
            return None
        if found.cost - price * room > best.loss:
            picks = (*light.picks, *heavy.picks, *found.picks)
            best = Bound(loss=found.cost - price * room, price=price, counted_price=found.counted_price, picks=picks)
        if found.cost >= heavy.loss + price * heavy.size - CLOSE * (abs(heavy.loss) + price * abs(heavy.size)):
            break
        heavy, light = (heavy, found) if found.size <= room else (found, light)
    return best


def _mixed(forest: Forest, part: Part, loss_weight: float, size_weight: float) -> _Mix | None:
    """The mixture of least cost within the limit on counted choices; None if there is none."""

    def cost(pick: Pick, price: float = 0.0) -> float:
        return loss_weight * pick.loss + size_weight * pick.size + price * (pick.counted - most)

    most, weights = forest.most_counted, (loss_weight, size_weight)
    many = forest.pick(part, (*weights, 0.0))
    if many is None:
        return None
    if many.counted <= most:
        return _Mix(cost=cost(many), loss=many.loss, size=many.size, counted_price=0.0, picks=(many,))
    costs = forest.costs(part, (*weights, 0.0))
    few = forest.pick(part, (*weights, 1.0 + float(np.abs(costs[np.isfinite(costs)]).sum())))
    if few is None or few.counted > most:
        return None
    for _ in range(STEPS):
        price = max(0.0, (cost(few) - cost(many)) / (many.counted - few.counted))
        found = forest.pick(part, (*weights, price))
        if found is None or cost(found, price) >= cost(few, price) - CLOSE * (abs(cost(few)) + price * most):
            break
        few, many = (few, found) if found.counted > most else (found, many)
    share = (many.counted - most) / (many.counted - few.counted)
    loss, size = (share * a + (1 - share) * b for a, b in ((few.loss, many.loss), (few.size, many.size)))
    low = cost(found or few, price)
    return _Mix(cost=low, loss=loss, size=size, counted_price=price, picks=(few, many))
