"""The core of a knapsack: the choices that its bound leaves open, solved by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paredown.search.solver.completion_bound import Completion
from paredown.search.solver.forest import Bound, Forest, Part, Pick
from paredown.search.solver.partial_sums import States, added, either

ROUNDING = 1e-11
"""Relative rounding error allowed in the sums of a bound; the gap is widened by it."""


SHRUNK = 0.5
"""Fraction of the gap at which the remaining parts are filtered and ordered again."""


class TooManyError(Exception):
    """The dynamic programming would hold more partial sums than allowed."""


class Core:
    """The choices of a part that can be in a better solution than the best known one.

    Args:
        forest: Nodes and their choices.
        part: Subset of the solutions.
        least: Lower bound of the part.
        room: Most size of a solution.
        best: Best known solution; None if there is none.
        most_states: Most partial sums that are held at a time.
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
        """The best solution; None if none improves on the best known one.

        Raises:
            TooManyError: If more than ``most_states`` partial sums would be held.
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
        """The node to branch on and its column (-1 for any choice): where the bound's solutions differ, inner first."""
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
        """Nodes that can be decided independently: roots, with nodes that have no live choice replaced by children."""
        pending, separate = [int(node) for node in np.flatnonzero(self.forest.parents < 0)], []
        while pending:
            node = pending.pop()
            if self.alive[node].any() or self.forest.is_leaf[node]:
                separate.append(node)
            else:
                pending += self._children[node]
        return separate

    def _states(self, node: int) -> States:
        """All undominated ways to decide a node and the nodes below it."""
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
        """Sums over all parts that can still be optimal. The gap shrinks as better solutions are found on the way."""
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
        """Most excess that the parts not summed yet may add."""
        return self.gap - float(states.excess.min(initial=self.gap))

    def _limited(self, states: States) -> States:
        if len(states) > self.most_states:
            raise TooManyError
        return states

    def _nothing(self, excess: float = 0.0) -> States:
        zero = np.zeros(1, dtype=np.int64)
        return States(losses=zero, sizes=zero, counted=zero, excess=np.full(1, excess), origin=())
