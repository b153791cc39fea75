"""Changes of a plan that keep the budget."""

from __future__ import annotations

import numpy as np
import pytest

from paredown.search.samplers.by_level.levels import Levels
from paredown.search.samplers.by_level.mutation import LEAST_SHARE, MOST_CHANGES, MOST_FLIPS, Mutation
from paredown.space.choice import KEEP
from shared import toys

BITS = [f"quantize bits={bits}" for bits in (2, 3, 4, 6, 8)]
FLAT = toys.toy_space(blocks=4, max_drops=0, choices={"linear": BITS, "ffn": ["keep"], "block": ["keep"]})
JOINT = toys.toy_space(blocks=4, max_drops=2, choices={"linear": BITS, "ffn": ["prune-neurons sparsity=0.5", "drop"]})
DEPTH = toys.toy_space(blocks=4, max_drops=2, choices={"linear": ["keep"], "embedding": ["keep"], "ffn": ["keep"]})


def made(space: toys.Space, share: float) -> tuple[Levels, Mutation, int]:
    budget = int(space.inventory.original_bytes * share)
    levels = Levels(space, toys.losses_of(space))
    return levels, Mutation(levels, budget), budget


@pytest.mark.parametrize(("space", "share"), [(FLAT, 0.3), (JOINT, 0.25), (JOINT, 0.4), (DEPTH, 0.6)])
def test_no_change_exceeds_the_budget_or_drops_too_much(space: toys.Space, share: float) -> None:
    """Along a random walk, in which all that the space offers comes up."""
    levels, mutation, budget = made(space, share)
    generator = np.random.default_rng(0)
    vector = mutation.rounded(generator)
    assert vector is not None
    seen = set()
    for _ in range(400):
        assert levels.bytes_of(vector) <= budget
        assert space.allows(levels.plan(vector))
        seen |= {choice for _, choice in levels.plan(vector).entries}
        changed = mutation.mutated(vector, generator)
        vector = vector if changed is None else changed
    assert seen == {choice for site in levels.sites for choice in levels.choices[levels.sites.index(site)]} - {KEEP}


def test_a_switch_gives_what_it_takes() -> None:
    """At most three levels up, at least four fifths of the bytes that were taken; the parent is left as it was."""
    levels, mutation, _ = made(FLAT, 0.3)
    generator = np.random.default_rng(1)
    parent = mutation.rounded(generator)
    assert parent is not None
    before, raised = parent.copy(), set()
    for _ in range(300):
        child = mutation.mutated(parent, generator)
        assert (parent == before).all()
        if child is None:
            continue
        step = child - parent
        sizes = [levels.sizes[np.arange(len(v)), v] for v in (parent, child)]
        given, taken = np.maximum(sizes[1] - sizes[0], 0).sum(), np.maximum(sizes[0] - sizes[1], 0).sum()
        assert np.abs(step).sum() <= MOST_CHANGES
        assert np.maximum(step, 0).sum() <= MOST_FLIPS
        assert given >= LEAST_SHARE * taken
        raised.add(int(np.maximum(step, 0).sum()))
    assert {1, 2, 3} <= raised


def test_the_start_is_uniform_but_for_the_last_bytes() -> None:
    """No leaf is above the smallest uniform level that exceeds the budget, and those that are below were needed."""
    levels, mutation, budget = made(FLAT, 0.3)
    linear = np.array([site.kind == "linear" for site in levels.sites])
    drawn = [mutation.rounded(np.random.default_rng(seed)) for seed in range(10)]
    assert len({tuple(vector) for vector in drawn if vector is not None}) > 5
    for vector in drawn:
        assert vector is not None
        highest = vector[linear].max()
        assert (
            levels.bytes_of(np.where(linear, highest, vector))
            > budget
            >= levels.bytes_of(np.where(linear, highest - 1, vector))
        )


def test_depth_is_switched_block_by_block() -> None:
    """Where nothing else can be chosen, as many are dropped as the budget asks, each in the place of another."""
    levels, mutation, _ = made(DEPTH, 0.6)
    generator = np.random.default_rng(0)
    vector = mutation.rounded(generator)
    assert vector is not None and levels.drops(vector) == 2
    dropped = set()
    for _ in range(200):
        changed = mutation.mutated(vector, generator)
        if changed is not None:
            assert levels.drops(changed) == 2
            vector = changed
            dropped.add(levels.plan(vector).dropped(DEPTH.inventory))
    assert len(dropped) == 6
