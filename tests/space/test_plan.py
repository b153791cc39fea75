"""Plans as values."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.compressors.bank.encoding import encode_site
from paredown.space.choice import KEEP, parse_choice
from paredown.space.errors import PlanError, UnknownNameError
from paredown.space.layouts import site_layout
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site
from paredown.space.targets.target import targets
from paredown.space.tensors import total_bytes
from shared import pico as families
from shared import strategies

TOY = strategies.toy_inventory()
plans = strategies.plans(TOY)


@given(plans)
def test_there_is_one_canonical_form(plan: Plan) -> None:
    """Named keeps, overruled choices and the order of naming make no difference to value, hash or text."""
    shuffled = dict(reversed(plan.entries)) | {site.name: KEEP for site in TOY.sites if plan[site.name] == KEEP}
    again = Plan.of(TOY, shuffled)
    assert again == plan
    assert hash(again) == hash(plan)
    assert str(again) == str(plan)
    assert all(choice != KEEP for _, choice in plan.entries)
    for parent in TOY.parents:
        if plan[parent.name] != KEEP:
            assert all(plan[leaf] == KEEP for leaf in parent.covers)


@given(plans)
def test_every_leaf_is_decided_once(plan: Plan) -> None:
    """By itself or by exactly one site that overrules it."""
    decided = [name for site, _ in plan.decided(TOY) for name in (site.covers or (site.name,))]
    assert sorted(decided) == sorted(site.name for site in TOY.leaves)


@given(plans)
def test_the_bytes_of_a_plan_are_the_sum(plan: Plan) -> None:
    """Sites as decided, what blocks that stay hold besides, and what lies outside blocks.

    A dropped block weighs nothing.
    """
    sites = sum(total_bytes(site_layout(site, choice)) for site, choice in plan.decided(TOY))
    stay = [site for site in TOY.parents if site.kind == "block" and site.block not in plan.dropped(TOY)]
    assert plan.size_bytes(TOY) == sites + sum(total_bytes(site.rest) for site in stay) + total_bytes(TOY.rest)
    assert not any(name.startswith(f"layers.{index}.") for index in plan.dropped(TOY) for name in plan.layout(TOY))


@given(plans, st.sampled_from(TOY.sites))
def test_one_choice_changes_its_own_bytes_only(plan: Plan, site: Site) -> None:
    """Keeping everything is the original; a site's choice shows in the tensors of its own modules alone."""
    assert Plan().size_bytes(TOY) == TOY.original_bytes
    name = site.name
    alone = Plan.of(TOY, {name: plan[name]})
    modules = tuple(f"{leaf}." for leaf in (TOY[name].covers or (name,)))
    ours = modules if plan[name] == KEEP or TOY[name].kind != "block" else (f"{name}.",)
    kept = {key: spec for key, spec in alone.layout(TOY).items() if not key.startswith(ours)}
    assert kept == {key: spec for key, spec in TOY.original_layout().items() if not key.startswith(ours)}


def test_a_dropped_block_overrules_what_it_holds() -> None:
    """A block over its network, a network over its layers; what is not overruled stays."""
    quantized, narrow, drop = (
        parse_choice("quantize bits=4"),
        parse_choice("prune-neurons sparsity=0.5"),
        parse_choice("drop"),
    )
    named = {"layers.0": drop, "layers.0.{up,down}": narrow, "layers.0.up": quantized, "layers.1.{up,down}": narrow}
    named |= {"layers.1.up": quantized, "layers.1.attention": quantized}
    plan = Plan.of(TOY, named)
    assert dict(plan.entries) == {"layers.0": drop, "layers.1.attention": quantized, "layers.1.{up,down}": narrow}
    assert plan.dropped(TOY) == (0,)


def test_a_plan_for_other_sites_is_refused() -> None:
    """An unknown site; every fault of those that are known, at once; all blocks dropped."""
    with pytest.raises(UnknownNameError, match="the model has no site 'layers.9.up'"):
        Plan.of(TOY, {"layers.9.up": parse_choice("cast")})
    plan = Plan.of(
        TOY,
        {
            "layers.0.up": parse_choice("quantize bits=4 group_size=128"),
            "embed": parse_choice("lowrank rank=2"),
            "layers.1": parse_choice("drop"),
        },
    )
    message = (
        r"the plan does not fit: embed: .*kind embedding; layers.0.up: .*group_size 128 does not divide in_features 32"
    )
    with pytest.raises(PlanError, match=message):
        plan.check(TOY, targets["paredown"])
    with pytest.raises(PlanError, match="transformers does not load packed zero points"):
        Plan.of(TOY, {"layers.0.up": parse_choice("quantize bits=4 symmetric=false")}).check(
            TOY, targets["transformers"]
        )
    with pytest.raises(PlanError, match="every block is dropped; keep at least one"):
        Plan.of(TOY, {f"layers.{i}": parse_choice("drop") for i in range(2)}).check(TOY, targets["paredown"])


@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_the_bytes_of_real_models_are_those_predicted(name: str, inventory: Callable[[str], Inventory]) -> None:
    """Compressed for real, tensor by tensor, a mixed plan weighs what was predicted."""
    found = inventory(name)
    parameters = {key: tensor.detach() for key, tensor in families.build(name).named_parameters()}
    kinds = [
        "quantize bits=3",
        "lowrank rank=3 then cast",
        "cluster clusters=16",
        "prune sparsity=0.5 then quantize bits=4",
        "cast",
    ]
    choices = {
        site.name: parse_choice(kinds[i % 5]) for i, site in enumerate(s for s in found.leaves if s.kind == "linear")
    }
    choices |= {
        site.name: parse_choice("prune-neurons sparsity=0.5 then quantize bits=4")
        for site in found.parents
        if site.kind == "ffn"
    }
    plan = Plan.of(found, choices | {found.leaves[0].name: parse_choice("quantize bits=8 group_size=16")})
    plan.check(found, targets["paredown"])
    stored = {
        key: tensor
        for site, choice in plan.decided(found)
        for key, tensor in encode_site(site, choice, parameters).items()
    }
    others = {key: parameters[key] for key in plan.layout(found) if key not in stored}
    assert stored.keys() | others.keys() == plan.layout(found).keys()
    assert sum(tensor.nbytes for tensor in (stored | others).values()) == plan.size_bytes(found)


def test_plans_and_choices_that_were_sent_to_another_process_hash_as_its_own() -> None:
    """Strings hash differently there; a copy with another knob hashes as what it became."""
    choice = parse_choice("lowrank rank=4 then quantize bits=4")
    plan = Plan((("a", choice),))
    assert hash(choice.model_copy(update={"then": None})) == hash(parse_choice("lowrank rank=4"))
    sent = pickle.dumps((hash(plan) and plan, hash(choice) and choice)).hex()
    code = (
        "import pickle, paredown; from paredown.space.choice import parse_choice; "
        "from paredown.space.plan import Plan; "
        f"plan, choice = pickle.loads(bytes.fromhex('{sent}')); "
        "own = parse_choice('lowrank rank=4 then quantize bits=4'); "
        "print({own: 1}.get(choice), {Plan((('a', own),)): 1}.get(plan))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert done.stdout.split() == ["1", "1"], done.stderr
