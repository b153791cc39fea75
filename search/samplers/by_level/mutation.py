"""Mutations of a plan within the budget: level switches, and sites dropped and restored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paredown.search.samplers.by_level.levels import Integers, Levels

MOST_FLIPS = 3
"""Most levels that a switch raises, and most structural changes of a mutation."""

MOST_CHANGES = 10
"""Most level changes of a switch."""

LEAST_SHARE = 0.8
"""Least bytes that a switch adds, as a fraction of the bytes that it removes."""

STRUCTURAL = 0.5
"""Probability that a mutation changes which sites are overruled, if the space has sites that overrule others."""


class Mutation:
    """Random mutations of a vector of levels that keep to the budget and to the space's limit on drops.

    Args:
        levels: Levels of the space.
        budget_bytes: Most bytes of a plan.
    """

    def __init__(self, levels: Levels, budget_bytes: int) -> None:
        self.levels, self.budget_bytes = levels, budget_bytes
        self._parents = np.flatnonzero(~levels.is_leaf)
        self._rounded_up = self._uniform_above()

    def mutated(self, vector: Integers, generator: np.random.Generator) -> Integers | None:
        """A mutated vector; None if the drawn mutation is not feasible. The input is not modified."""
        if len(self._parents) and generator.random() < STRUCTURAL:
            return self._restructured(vector, generator)
        return self._switched(vector, generator)

    def rounded(self, generator: np.random.Generator) -> Integers | None:
        """The smallest uniform vector above the budget, lowered at random sites until it fits; None if it cannot."""
        return self._lowered(self._rounded_up.copy(), generator)[0]

    def _uniform_above(self) -> Integers:
        """The smallest uniform vector above the budget; the top vector if none exceeds it.

        In a uniform vector, every leaf has its largest level within the same fraction of its largest choice's bytes.
        """
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
        """Level switch: one to three levels raised (fewer are likelier), then others lowered until the budget holds."""
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
        """Structural mutation: a site that overrules is switched with one that does not, or a site's level is redrawn.

        The levels of leaves then balance the bytes.
        """
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
        """Moves a site's level to an idle site of its kind; its leaves take the levels of the other's. In place."""
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
        """Lowers random leaves by one level until the budget holds; modifies the vector.

        Once all leaves are at their lowest, sites above them are lowered, which overrules or drops more.

        Returns:
            The vector, None if the budget cannot be met; and the number of changes.
        """
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
        """Sites above the leaves whose next lower level saves bytes and keeps to the limit on drops."""
        levels, size = self.levels, self.levels.bytes_of(vector)
        found = []
        for place in self._parents[vector[self._parents] > 0]:
            lower = vector.copy()
            lower[place] -= 1
            if levels.bytes_of(lower) < size and levels.drops(lower) <= levels.space.max_drops:
                found.append(place)
        return np.array(found, dtype=np.int64)

    def _filled(self, vector: Integers, generator: np.random.Generator) -> Integers:
        """Raises random leaves by one level as long as the budget holds; modifies the vector."""
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
