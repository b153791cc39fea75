"""A forest of choices: one a leaf, or one of a node that takes the place of all leaves below it; and bounds of its knapsack."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

CLOSE = 1e-12
"""Share by which rounding may move a sum of floats."""

STEPS = 100
"""Most steps to the best price; about ten are taken. A bound holds after any number of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Forest:
    """Nodes, children before their parents, with their choices; ``(n, c)`` = nodes x choices, rows filled up.

    Attributes:
        parents: ``(n,)``, the node above; -1 at a root.
        is_leaf: ``(n,)``, whether it must take a choice of its own unless a node above does.
        losses: ``(n, c)``, of each choice; integers, so that equal sums are equal.
        sizes: ``(n, c)``.
        offered: ``(n, c)``, whether there is such a choice.
        counted: ``(n, c)``, whether it is one of those of which there may be only so many; false at leaves.
        most_counted: How many.
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
        """Inner nodes by height, lowest first; each level with the children of its nodes."""
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
        """``(n, c)``: the choices of a part with losses, sizes and counts so weighted; infinite where there is none."""
        total = np.full(self.losses.shape, np.inf)
        terms = [weight * term for weight, term in zip(weights, self._floats, strict=True) if weight]
        np.copyto(total, sum(terms[1:], terms[0]), where=part.offered)
        return total

    def least(self, part: Part, costs: Floats) -> tuple[Floats, Floats]:
        """``(n,)``: least cost at and below each node, and that of its children together; infinite where they may not be used."""
        value, below = costs.min(1), np.full(len(costs), np.inf)
        for nodes, children in self.levels:
            sums = np.bincount(self.parents[children], weights=value[children], minlength=len(costs))[nodes]
            below[nodes] = np.where(part.is_open[nodes], sums, np.inf)
            value[nodes] = np.minimum(value[nodes], below[nodes])
        return value, below

    def pick(self, part: Part, weights: tuple[float, float, float]) -> Pick | None:
        """The solution of least cost under such weights; None if the part has none. Of equal choices the first."""
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
        """The solution that takes these choices."""
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
        """All solutions."""
        return Part(offered=self.offered, is_open=~self.is_leaf)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Some of the solutions of a forest.

    Attributes:
        offered: ``(n, c)``, choices that they may take.
        is_open: ``(n,)``, inner nodes that may leave it to their children.
    """

    offered: Flags
    is_open: Flags


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pick:
    """A solution: ``(n,)`` columns of the choices that are taken, -1 at a node that takes none; and their sums."""

    places: Integers
    loss: int
    size: int
    counted: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bound:
    """What no solution within a room is better than: the Lagrangian dual, as tight as the linear relaxation.

    Attributes:
        loss: Of the best mixture of solutions.
        price: Loss that a unit of room saves.
        counted_price: Loss that one counted choice more saves.
        picks: Solutions of the mixture, and one of least cost at those prices.
    """

    loss: float
    price: float
    counted_price: float
    picks: tuple[Pick, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Mix:
    """One solution, or two in such shares that as many are counted as may be.

    Attributes:
        cost: No solution that counts so many costs less.
        loss: Of the mixture.
        size: Of the mixture.
        counted_price: Cost that one counted choice more saves.
        picks: What is mixed.
    """

    cost: float
    loss: float
    size: float
    counted_price: float
    picks: tuple[Pick, ...]


def bound(forest: Forest, part: Part, room: int) -> Bound | None:
    """The bound of a part; None if nothing in it has so little size.

    Each step asks for the least cost at the price at which the two solutions around the room cost the same, until none costs less.
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
    """The mixture of least cost that counts no more than may be; None if there is none."""

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
