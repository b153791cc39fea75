"""Which calibrated choices a lazily filled bank makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from paredown.search.sensitivity.lazy_choices import data_free, is_lazy, narrowed
from paredown.search.solver.solver import Solver
from paredown.space.choice import Choice, parse_choice
from paredown.space.layouts import site_fault, site_layout
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site
from paredown.space.space import Space
from paredown.space.study_file import SpaceFile, StudyFile
from paredown.space.targets.target import targets
from paredown.space.tensors import total_bytes

BITS = (2, 3, 4, 5, 6, 8)
SPACE = SpaceFile(
    choices={
        "linear": [f"quantize bits={bits} group_size=16 algorithm=gptq" for bits in BITS]
        + ["quantize bits=3 group_size=32", "cluster clusters=8"],
        "ffn": [
            "prune-neurons sparsity=0.5 then quantize bits=4 algorithm=gptq",
            "prune-neurons sparsity=0.5 then quantize bits=8",
        ],
    }
)
Losses = Mapping[tuple[str, Choice], float]


@pytest.fixture
def space(inventory: Callable[[str], Inventory]) -> Space:
    return Space.build(inventory("llama"), targets["paredown"], SPACE)


def bytes_of(site: Site, choice: Choice) -> int:
    return total_bytes(site_layout(site, choice))


def made_losses(space: Space) -> dict[tuple[str, Choice], float]:
    """More bytes, less loss; the later a site, the more it matters."""
    places = {site.name: place for place, site in enumerate(space.inventory.sites)}
    return {
        (site.name, choice): 4.0 ** -(8 * bytes_of(site, choice) / max(1, sum(m.parameters for m in site.members)))
        * (1 + places[site.name]) ** 2
        for site in space.inventory.sites
        for choice in space.options[site.name]
    }


@pytest.mark.parametrize(
    ("text", "sibling"),
    [
        ("quantize bits=3 group_size=16 algorithm=gptq", "quantize bits=3 group_size=16"),
        (
            "lowrank rank=8 algorithm=whitened then quantize bits=8 algorithm=gptq",
            "lowrank rank=8 then quantize bits=8",
        ),
        ("prune sparsity=0.5 algorithm=wanda then quantize bits=4", "prune sparsity=0.5 then quantize bits=4"),
        (
            "prune-neurons sparsity=0.5 then quantize bits=4 algorithm=gptq",
            "prune-neurons sparsity=0.5 then quantize bits=4",
        ),
        ("cluster clusters=8 weighting=fisher", "cluster clusters=8"),
        ("quantize bits=3 algorithm=round-to-nearest", None),
        ("keep", None),
    ],
)
def test_a_sibling_is_the_same_without_statistics(text: str, sibling: str | None) -> None:
    """A choice that needs none is its own."""
    assert parse_choice(text).data_free == parse_choice(sibling or text)


def test_a_sibling_has_the_same_bytes_and_needs_nothing(space: Space) -> None:
    """At every site that takes it, for all that is offered by default too."""
    default = Space.build(space.inventory, targets["paredown"])
    seen = 0
    for site in space.inventory.sites:
        for choice in {*space.options[site.name], *default.options[site.name]}:
            if (free := choice.data_free) is not None and site_fault(site, free, targets["paredown"]) is None:
                assert not free.needs
                assert bytes_of(site, free) == bytes_of(site, choice)
                seen += bool(choice.needs)
    assert seen


@pytest.mark.parametrize("share", [0.15, 0.2, 0.3, 0.5])
def test_what_the_front_takes_stays_with_a_neighbour_on_each_side(space: Space, share: float) -> None:
    """And no other calibrated choice; all that need no statistics stay, and the budget is met as well as before."""
    free = data_free(space)
    losses = made_losses(free)
    budget = int(share * space.inventory.original_bytes)
    found = narrowed(space, free, losses, budget)
    assert 0 < sum(map(len, found.options.values())) < sum(map(len, space.options.values()))
    solver = Solver(free)
    smallest = solver.smallest().size_bytes(space.inventory)
    low, high = max(smallest, int(0.7 * budget)), int(1.4 * budget)
    plans = [solver.solve(losses, low + (high - low) * step // 60) for step in range(61)]
    for site in space.inventory.leaves:
        offered, stay = space.options[site.name], found.options[site.name]
        assert set(stay) <= set(offered)
        assert {c for c in offered if not c.needs} <= set(stay)
        sizes = sorted({bytes_of(site, c) for c in offered if c.needs})
        kept = [bytes_of(site, c) for c in stay if c.needs]
        assert sorted(set(kept)) == [size for size in sizes if kept and min(kept) <= size <= max(kept)]  # no gap
        taken = [
            bytes_of(site, dict(decided(plan, space))[site.name])
            for plan in plans
            if site.name in dict(decided(plan, space))
        ]
        if taken and kept:
            beyond = [size for size in sizes if size > max(taken)][1:] + [size for size in sizes if size < min(taken)][
                :-1
            ]
            assert not set(kept) & set(beyond)
    for plan in (
        plans[0],
        solver.solve(losses, budget),
        plans[-1],
    ):  # the ends of the front, and its middle: one step lies on each side
        for name, choice in decided(plan, space):
            own, sizes = bytes_of(space.inventory[name], choice), calibrated_sizes(space, name)
            near = {*[size for size in sizes if size < own][-1:], *[size for size in sizes if size > own][:1]}
            assert near <= set(calibrated_sizes(found, name)), name
    best = solver.solve(losses, budget)
    again = Solver(found).solve(
        {(s, c): losses.get((s, c.data_free or c), 10.0) for s, options in found.options.items() for c in options},
        budget,
    )
    assert predicted(again, found, losses) == pytest.approx(predicted(best, free, losses))


def calibrated_sizes(space: Space, name: str) -> list[int]:
    """Bytes of a site's calibrated choices, each once, ascending."""
    return sorted({bytes_of(space.inventory[name], choice) for choice in space.options[name] if choice.needs})


def decided(plan: Plan, space: Space) -> list[tuple[str, Choice]]:
    return [(site.name, choice) for site, choice in plan.decided(space.inventory)]


def predicted(plan: Plan, space: Space, losses: Losses) -> float:
    return sum(losses[name, choice.data_free or choice] for name, choice in decided(plan, space))


def test_nothing_leaves_where_only_calibrated_choices_meet_the_budget(inventory: Callable[[str], Inventory]) -> None:
    wishes = SpaceFile(
        choices={
            "linear": ["keep", "vector-quantize centroids=16 dimensions=2"],
            "ffn": [],
            "attention": [],
            "block": [],
        }
    )
    space = Space.build(inventory("llama"), targets["paredown"], wishes)
    free = data_free(space)
    assert narrowed(space, free, made_losses(free), Solver(space).smallest().size_bytes(space.inventory)) == space


def test_large_models_are_lazy_and_small_ones_when_asked(space: Space) -> None:
    assert not is_lazy(StudyFile(model="m"), space)
    assert is_lazy(StudyFile(model="m", bank="lazy"), space)
    assert not is_lazy(StudyFile(model="m", bank="all"), space)
