"""Plans as vectors of levels."""

from __future__ import annotations

import numpy as np
import pytest

from paredown.search.samplers.by_level.levels import Levels
from paredown.space.choice import KEEP
from paredown.space.plan import Plan
from shared import toys

SPACE = toys.toy_space(max_drops=1, choices={"ffn": ["prune-neurons sparsity=0.5", "drop"]})
LOSSES = toys.losses_of(SPACE)
LEVELS = Levels(SPACE, LOSSES)
GENERATOR = np.random.default_rng(0)
VECTORS = np.array([GENERATOR.integers(0, LEVELS.top + 1) for _ in range(200)])


def test_bytes_and_drops_are_those_of_the_plan() -> None:
    """For one vector and for many at once; a dropped block takes its norms and all else in it along."""
    plans = [LEVELS.plan(vector) for vector in VECTORS]
    sizes = [plan.size_bytes(SPACE.inventory) for plan in plans]
    drops = [plan.drops(SPACE.inventory) for plan in plans]
    assert LEVELS.bytes_of(VECTORS).tolist() == sizes == [LEVELS.bytes_of(vector) for vector in VECTORS]
    assert LEVELS.drops(VECTORS).tolist() == drops
    assert {0, 1, 2} <= set(drops)
    for vector, plan in zip(VECTORS, plans, strict=True):
        decided = [site.name for site, _ in plan.decided(SPACE.inventory)]
        assert [
            site.name for site, decides in zip(LEVELS.sites, LEVELS.decides(vector), strict=True) if decides
        ] == decided


def test_a_plan_comes_back_from_its_vector() -> None:
    for plan in [LEVELS.plan(vector) for vector in VECTORS]:
        assert LEVELS.plan(LEVELS.vector(plan)) == plan


def test_vectors_of_one_plan_have_one_form() -> None:
    """Vectors of one plan are normalised to the same vector."""
    plans = [LEVELS.plan(vector) for vector in VECTORS]
    forms = LEVELS.canonical(VECTORS)
    assert [LEVELS.plan(form) for form in forms] == plans
    assert len({tuple(form) for form in forms}) == len(set(plans)) < len({tuple(vector) for vector in VECTORS})


def test_no_level_is_beaten_by_another() -> None:
    """More bytes, less loss; every other option is beaten by a level."""
    for site, choices in zip(LEVELS.sites, LEVELS.choices, strict=True):
        size = dict(zip(SPACE.options[site.name], SPACE.sizes(site), strict=True))
        own = [choice for choice in choices if site.is_leaf or choice != KEEP]
        points = [(size[choice], LOSSES[site.name, choice]) for choice in own]
        assert points == sorted(points) and sorted((loss for _, loss in points), reverse=True) == [
            loss for _, loss in points
        ]
        for option in SPACE.options[site.name]:
            assert any(size[c] <= size[option] and LOSSES[site.name, c] <= LOSSES[site.name, option] for c in own)


def test_what_is_no_level_becomes_the_nearest_in_bytes() -> None:
    space = toys.toy_space(
        max_drops=0, choices={"linear": ["quantize bits=2", "quantize bits=4", "quantize bits=8"], "ffn": ["keep"]}
    )
    losses = {pair: loss if "bits=4" not in str(pair[1]) else 9.0 for pair, loss in toys.losses_of(space).items()}
    levels = Levels(space, losses)
    leaf = next(place for place, site in enumerate(levels.sites) if site.kind == "linear")
    assert [str(choice) for choice in levels.choices[leaf]] == ["quantize bits=2", "quantize bits=8"]
    fours = Plan.of(
        space.inventory,
        {site.name: space.options[site.name][1] for site in space.inventory.leaves if site.kind == "linear"},
    )
    assert levels.vector(fours)[leaf] == 0


def test_leaves_that_were_overruled_are_as_the_others_are() -> None:
    """So that a site that is restored starts where the rest of the plan is."""
    kept = np.where(LEVELS.is_leaf, 0, LEVELS.top)
    place = next(place for place, site in enumerate(LEVELS.sites) if site.kind == "block")
    dropped = kept.copy()
    dropped[place] = 0
    again = LEVELS.vector(LEVELS.plan(dropped))
    again[place] = LEVELS.top[place]
    assert (again[LEVELS.is_leaf] == 0).all()


@pytest.mark.parametrize("vector", VECTORS[:50])
def test_what_is_too_much_left_out_stays(vector: np.ndarray) -> None:
    """The first of them is left out; leaves do not change."""
    allowed = LEVELS.allowed(vector)
    assert LEVELS.drops(allowed) == min(1, LEVELS.drops(vector))
    assert (allowed[LEVELS.is_leaf] == vector[LEVELS.is_leaf]).all()
    assert SPACE.allows(LEVELS.plan(allowed))
