"""What of a knapsack is left to decide once its bound is known, and the best of it by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paredown.search.completion import Completion
from paredown.search.forest import Bound, Forest, Part, Pick
from paredown.search.states import States, added, either

ROUNDING = 1e-11
"""Share by which the sums of a bound may be off; so much more than needed is looked at."""


SHRUNK = 0.5
"""At this share of the gap it pays to look at all parts anew."""


class TooManyError(Exception):
    """More sums than may be held."""


class Core:
    """The choices of a part that may be in a better solution than the best one known.

    Args:
        forest: What can be chosen.
        part: Some of its solutions.
        least: Their bound.
        room: Most size.
        best: The best solution known.
        most_states: Most sums that are held at a time.
    """

    def __init__(
        self, forest: Forest, part: Part, least: Bound, room: int, best: Pick | None, most_states: int
    ) -> None:
        self.forest, self.part, self.least, self.room, self.most_states = forest, part, least, room, most_states
        known = float(np.abs(forest.losses).max(1).sum() if best is None else best.loss)
        magnitude = abs(least.loss) + least.price * (abs(room) + float(np.abs(forest.sizes).max(1).sum()))
        self.rounding = ROUNDING * magnitude + 0.5
        self.gap = known - least.loss + self.rounding
        costs = forest.costs(part, (1.0, least.price, least.counted_price))
        value, below = forest.least(part, costs)
        reached = np.isfinite(value)
        self._excess = np.where(reached[:, None], costs, np.inf) - np.where(reached, value, 0.0)[:, None]
        self._below = np.where(reached, below, np.inf) - np.where(reached, value, 0.0)
        self.alive = self._excess <= self.gap
        self._children: list[list[int]] = [[] for _ in forest.parents]
        for node in np.flatnonzero(forest.parents >= 0):
            self._children[forest.parents[node]].append(int(node))
        self._counted = forest.counted.astype(np.int64)
        if (self._counted * self.alive).max(1).sum() <= forest.most_counted:
            self._counted[:] = 0

    def solve(self) -> Pick | None:
        """The best solution; None if none is better than the best one known.

        Raises:
            TooManyError: If it holds too many sums.
        """
        places = np.full(len(self.forest.parents), -1, dtype=np.int64)
        found = self._summed(self._nothing(), [self._states(node) for node in self._separate()])
        if not len(found):
            return None
        best = int(np.lexsort((found.sizes, found.losses))[0])
        for node, place in found.choices(best):
            places[node] = place
        return self.forest.picked(places)

    def undecided(self) -> tuple[int, int]:
        """The node to decide next and its column, -1 for any: where the bound's solutions differ, inner nodes first."""
        picked = np.array([pick.places for pick in self.least.picks])
        inner = np.flatnonzero(((picked >= 0) != (picked[0] >= 0)).any(0) & ~self.forest.is_leaf)
        if len(inner):
            return int(inner[-1]), -1
        differing = np.flatnonzero((picked != picked[0]).any(0))
        if len(differing):
            node = int(differing[0])
            return node, int(picked[:, node].max())
        leaves_it = self.part.is_open & (self._below <= self.gap)
        node = int((self.alive.sum(1) + leaves_it).argmax())
        return node, -1 if leaves_it[node] else int(self._excess[node].argmin())

    def _separate(self) -> list[int]:
        """Nodes that are decided each for itself: roots, and the children of nodes that can only leave it to them."""
        pending, separate = [int(node) for node in np.flatnonzero(self.forest.parents < 0)], []
        while pending:
            node = pending.pop()
            if self.alive[node].any() or self.forest.is_leaf[node]:
                separate.append(node)
            else:
                pending += self._children[node]
        return separate

    def _states(self, node: int) -> States:
        """All that may be chosen at a node and below it."""
        places = np.flatnonzero(self.alive[node])
        own = States(
            losses=self.forest.losses[node, places],
            sizes=self.forest.sizes[node, places],
            counted=self._counted[node, places],
            excess=self._excess[node, places],
            origin=((node, places),),
        )
        own = own.undominated()
        if self.forest.is_leaf[node] or self._below[node] > self.gap:
            return own
        inner = self._nothing(self._below[node])
        for child in self._children[node]:
            inner = self._limited(added(inner, self._states(child), self.gap))
        return self._limited(either(own, inner).undominated())

    def _summed(self, states: States, parts: Sequence[States]) -> States:
        """All sums that may be best. The gap shrinks as better solutions come into sight; then what it leaves out is left out."""
        least, most = self.least, self.forest.most_counted
        gap = self._left(states)
        near = [part.take(np.flatnonzero(part.excess <= gap)) for part in parts]
        single = self._nothing()
        for part in near:
            single = added(single, part, np.inf) if len(part) == 1 else single
        states = added(states, single, self.gap)
        near = sorted((part for part in near if len(part) > 1), key=lambda part: float(np.partition(part.excess, 1)[1]))
        rest = Completion(near, least.price)
        for turn in range(len(near) + 1):
            if turn:
                states = self._limited(added(states, near[turn - 1], self.gap))
            excess, losses, counted = rest.bounds(states, turn, self.room)
            solved = float(losses[counted <= most].min(initial=np.inf))
            self.gap = min(self.gap, solved - least.loss + self.rounding)
            may = states.counted + rest.counts[turn, 0] <= most
            if self._counted.any():
                excess = excess + least.counted_price * np.maximum(most - states.counted - rest.counts[turn, 1], 0)
            states = states.take(np.flatnonzero(may & (excess <= self.gap)))
            if turn < len(near) and self._left(states) < SHRUNK * gap:
                return self._summed(states, near[turn:])
        return states

    def _left(self, states: States) -> float:
        """Excess that the parts not yet summed may have."""
        return self.gap - float(states.excess.min(initial=self.gap))

    def _limited(self, states: States) -> States:
        if len(states) > self.most_states:
            raise TooManyError
        return states

    def _nothing(self, excess: float = 0.0) -> States:
        zero = np.zeros(1, dtype=np.int64)
        return States(losses=zero, sizes=zero, counted=zero, excess=np.full(1, excess), origin=())
