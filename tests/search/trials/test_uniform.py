"""What a person would do without a search."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paredown.search.trials.uniform import BITS, uniform_plan, uniform_plans
from paredown.space.choice import KEEP, parse_choice
from paredown.space.layouts import site_fault
from paredown.space.site import Inventory, Site
from paredown.space.space import Space
from paredown.space.study_file import SpaceFile
from paredown.space.targets.target import targets
from shared import pico as families

Inventories = Callable[[str], Inventory]


def eligible(space: Space) -> list[Site]:
    return [site for site in space.inventory.leaves if site.kind == "linear" and len(space.options[site.name]) > 1]


@pytest.mark.parametrize("target", ["paredown", "transformers"])
@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_one_choice_at_all_eligible_linear_layers(inventory: Inventories, name: str, target: str) -> None:
    """The same bits everywhere, in one group size, or whole channels where it does not divide; the target runs all."""
    space = Space.build(inventory(name), targets[target])
    plans = uniform_plans(space, space.inventory.original_bytes // 2)
    assert len({plan.plan for plan in plans}) == len(plans)
    for plan in plans:
        plan.plan.check(space.inventory, space.target)
        chosen = {plan.plan[site.name] for site in eligible(space)} - {KEEP}
        assert len({(choice.method, getattr(choice, "bits", None)) for choice in chosen}) <= 1
        assert len({getattr(choice, "group_size", None) for choice in chosen} - {"channel"}) <= 1
        bits = int(plan.label.split()[0])
        for site in eligible(space):
            if plan.plan[site.name] == KEEP:
                assert site_fault(site, parse_choice(f"quantize bits={bits}"), space.target)
        assert plan.size_bytes == plan.plan.size_bytes(space.inventory)


@pytest.mark.parametrize("share", [0.2, 0.35, 0.6])
def test_the_most_bits_that_fit_are_there(inventory: Inventories, share: float) -> None:
    """And one of every width, so that there is always a rival."""
    space = Space.build(inventory("llama"), targets["paredown"])
    budget = int(space.inventory.original_bytes * share)
    plans = uniform_plans(space, budget)
    assert {int(plan.label.split()[0]) for plan in plans} == set(BITS)
    fitting = [plan for plan in plans if plan.size_bytes <= budget]
    assert fitting
    assert [plan.size_bytes for plan in plans] == sorted((plan.size_bytes for plan in plans), reverse=True)


def test_a_plan_of_exactly_the_budget_fits(inventory: Inventories) -> None:
    """It is among the rivals, though one of the same bits in smaller groups is larger than the budget."""
    space = Space.build(inventory("llama"), targets["paredown"])
    found = uniform_plan(space, 4, 32, KEEP)
    assert found.plan in [plan.plan for plan in uniform_plans(space, found.size_bytes)]
    assert found.plan not in [plan.plan for plan in uniform_plans(space, found.size_bytes - 1)]


def test_a_pin_is_respected(inventory: Inventories) -> None:
    pins = {"model.embed_tokens": "quantize bits=8 group_size=32", "model.layers.0.self_attn.q_proj": "keep"}
    wishes = SpaceFile.model_validate(
        {"overrides": [{"match": match, "choices": [choice]} for match, choice in pins.items()]}
    )
    space = Space.build(inventory("llama"), targets["paredown"], wishes)
    plans = uniform_plans(space, space.inventory.original_bytes)
    for plan in plans:
        for site, choice in pins.items():
            pinned = parse_choice(choice)
            shape = space.inventory[site].members[0].shape
            assert plan.plan[site] == pinned.canonical(shape)
    assert all("embedding" not in plan.label for plan in plans)


@pytest.mark.parametrize(
    "choices",
    [["cluster clusters=16"], ["cluster clusters=16", "cluster clusters=200"], ["quantize bits=2", "quantize bits=3"]],
)
def test_an_embedding_without_a_plain_choice_takes_the_one_nearest_to_8_bits(
    inventory: Inventories, choices: list[str]
) -> None:
    """A study may offer codebooks only; there are uniform plans all the same."""
    wishes = SpaceFile.model_validate({"choices": {"embedding": choices}})
    space = Space.build(inventory("llama"), targets["paredown"], wishes)
    plans = uniform_plans(space, space.inventory.original_bytes // 2)
    assert {int(plan.label.split()[0]) for plan in plans} == set(BITS)
    assert {plan.plan["model.embed_tokens"] for plan in plans} == {parse_choice(choices[-1])}
