"""Changes of a plan that keep the budget: levels switched, sites dropped and restored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paredown.search.levels import Integers, Levels

MOST_FLIPS = 3
MOST_CHANGES = 10
LEAST_SHARE = 0.8
"""Of the bytes that a switch takes away it gives at least so many."""

STRUCTURAL = 0.5
"""Probability that a mutation changes what is overruled, where something can be."""


class Mutation:
    """Random changes of a vector of levels; none exceeds the budget, none drops more than may be.

    Args:
        levels: The space.
        budget_bytes: What a plan may weigh.
    """

    def __init__(self, levels: Levels, budget_bytes: int) -> None:
        self.levels, self.budget_bytes = levels, budget_bytes
        self._parents = np.flatnonzero(~levels.is_leaf)
        self._rounded_up = self._uniform_above()

    def mutated(self, vector: Integers, generator: np.random.Generator) -> Integers | None:
        """Another vector; None where the change that was drawn is not to be had."""
        if len(self._parents) and generator.random() < STRUCTURAL:
            return self._restructured(vector, generator)
        return self._switched(vector, generator)

    def rounded(self, generator: np.random.Generator) -> Integers | None:
        """The smallest uniform vector that exceeds the budget, lowered at random until it does not."""
        return self._lowered(self._rounded_up.copy(), generator)[0]

    def _uniform_above(self) -> Integers:
        """Every leaf at the most bytes that are no more than a share of its largest choice's; the least share that exceeds the budget."""
        levels = self.levels
        largest = levels.sizes[np.arange(len(levels.sites)), levels.top]
        offered = np.arange(levels.sizes.shape[1]) <= levels.top[:, None]
        shares = np.where(offered, levels.sizes / np.maximum(1, largest)[:, None], np.inf)
        for share in np.unique(shares[levels.is_leaf][offered[levels.is_leaf]]):
            vector = np.where(levels.is_leaf, np.maximum((shares <= share).sum(1) - 1, 0), levels.top)
            if levels.bytes_of(vector) > self.budget_bytes:
                return vector
        return levels.top.copy()

    def _switched(self, vector: Integers, generator: np.random.Generator) -> Integers | None:
        """One to three levels raised, few more likely; then others lowered until the budget holds."""
        vector, before = vector.copy(), self.levels.bytes_of(vector)
        raised: list[int] = []
        for _ in range(_flips(generator)):
            places = np.flatnonzero(self.levels.is_leaf & self.levels.decides(vector) & (vector < self.levels.top))
            if not len(places):
                break
            raised.append(int(generator.choice(places)))
            vector[raised[-1]] += 1
        added = self.levels.bytes_of(vector) - before
        lowered, changes = self._lowered(vector, generator, raised)
        if not raised or lowered is None or len(raised) + changes > MOST_CHANGES:
            return None
        removed = before + added - self.levels.bytes_of(lowered)
        return lowered if added >= LEAST_SHARE * removed else None

    def _restructured(self, vector: Integers, generator: np.random.Generator) -> Integers | None:
        """What overrules switched with one of its kind that does not, or changed; leaves then balance the bytes."""
        vector = vector.copy()
        for _ in range(_flips(generator)):
            active = self._parents[self.levels.decides(vector)[self._parents]]
            if len(active) and generator.random() < 0.5:
                self._switch(vector, int(generator.choice(active)), generator)
            else:
                place = int(generator.choice(self._parents))
                others = [level for level in range(self.levels.top[place] + 1) if level != vector[place]]
                vector[place] = generator.choice(others)
        if self.levels.drops(vector) > self.levels.space.max_drops:
            return None
        lowered, _ = self._lowered(vector, generator)
        return None if lowered is None else self._filled(lowered, generator)

    def _switch(self, vector: Integers, active: int, generator: np.random.Generator) -> None:
        """Another site of the kind is overruled in place of this one, whose leaves take the levels of the other's."""
        levels = self.levels
        alike = [
            p for p in self._parents if levels.sites[p].kind == levels.sites[active].kind and vector[p] == levels.top[p]
        ]
        alike = [p for p in alike if levels.top[p] == levels.top[active]]
        if not alike:
            return
        other = int(generator.choice(alike))
        vector[other], vector[active] = vector[active], levels.top[active]
        ours, theirs = (np.flatnonzero(levels.covers[place] & levels.is_leaf) for place in (active, other))
        if len(ours) == len(theirs):
            vector[ours] = np.minimum(vector[theirs], levels.top[ours])

    def _lowered(
        self, vector: Integers, generator: np.random.Generator, spared: Sequence[int] = ()
    ) -> tuple[Integers | None, int]:
        """Random leaves a level lower until the budget holds, and how often; where they are all at their lowest, others are overruled."""
        levels, changes = self.levels, 0
        spare = np.isin(np.arange(len(vector)), spared)
        while levels.bytes_of(vector) > self.budget_bytes:
            decides = levels.decides(vector)
            places = np.flatnonzero(levels.is_leaf & decides & (vector > 0) & ~spare)
            if not len(places):
                places = self._reducible(vector)
            if not len(places):
                return None, changes
            vector[generator.choice(places)] -= 1
            changes += 1
        return vector, changes

    def _reducible(self, vector: Integers) -> Integers:
        """Sites of which a lower level is smaller and leaves out no more than may be."""
        levels, size = self.levels, self.levels.bytes_of(vector)
        found = []
        for place in self._parents[vector[self._parents] > 0]:
            lower = vector.copy()
            lower[place] -= 1
            if levels.bytes_of(lower) < size and levels.drops(lower) <= levels.space.max_drops:
                found.append(place)
        return np.array(found, dtype=np.int64)

    def _filled(self, vector: Integers, generator: np.random.Generator) -> Integers:
        """Random leaves a level higher as long as the budget holds."""
        levels = self.levels
        free = self.budget_bytes - levels.bytes_of(vector)
        raisable = set(np.flatnonzero(levels.is_leaf & levels.decides(vector) & (vector < levels.top)).tolist())
        while raisable:
            place = int(generator.choice(sorted(raisable)))
            step = levels.sizes[place, vector[place] + 1] - levels.sizes[place, vector[place]]
            if step <= free:
                vector[place] += 1
                free -= step
            if step > free or vector[place] == levels.top[place]:
                raisable.discard(place)
        return vector


def _flips(generator: np.random.Generator) -> int:
    return int(generator.integers(1, MOST_FLIPS + 1, 2).min())
