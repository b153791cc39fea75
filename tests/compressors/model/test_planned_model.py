"""One plan after the other in one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from paredown.compressors.bank.encoding import norm_names
from paredown.compressors.calibration.collect import collect
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.original.checkpoint import load_original, parameters_of
from paredown.deploy.apply import encoded
from paredown.deploy.engines.transformers import TorchModel
from paredown.deploy.verify import scored_model
from paredown.space.choice import Choice, parse_choice
from paredown.space.plan import Plan
from paredown.space.site import Site
from shared import strategies
from shared.planned import NAMES, TOKENS, Folder, planned_model, states, streamed_model

METHODS = {"ffn": "prune-neurons sparsity=0.5", "attention": "prune-heads sparsity=0.5"}


@torch.no_grad()
def fresh(folder: Path, plan: Plan, planned: PlannedModel) -> Tensor:
    """Logits of the original, loaded again, with the plan's weights written into it."""
    model, inventory = load_original(folder), planned.inventory
    tensors = encoded(inventory, plan, dict(parameters_of(model)), planned.bank.tensors)
    return TorchModel(scored_model(model, inventory, plan, tensors), causal=inventory.causal).outputs(TOKENS)


@pytest.mark.parametrize("make", [planned_model, streamed_model])
@pytest.mark.parametrize("name", NAMES)
def test_from_any_plan_to_any_other(
    pico: Folder, tmp_path: Path, name: str, make: Callable[[Path, Path], PlannedModel]
) -> None:
    """The logits are exactly those of a freshly loaded model with these weights, whatever plans came before."""
    planned = make(pico(name), tmp_path)

    @settings(max_examples=3)
    @given(st.lists(strategies.plans(planned.inventory), min_size=1, max_size=2))
    def law(plans: list[Plan]) -> None:
        for plan in plans:
            planned.swap(plan)
            assert torch.equal(states(planned), fresh(pico(name), plan, planned))
        planned.swap(Plan())
        assert torch.equal(states(planned), original)

    original = states(planned)
    law()


@pytest.mark.parametrize("make", [planned_model, streamed_model])
@pytest.mark.parametrize("name", NAMES)
def test_drops_and_narrow_networks_come_and_go(
    pico: Folder, tmp_path: Path, name: str, make: Callable[[Path, Path], PlannedModel]
) -> None:
    """Every order of a dropped block, a network without half of its neurons, and its matrices by themselves."""
    planned = make(pico(name), tmp_path)
    inventory = planned.inventory
    block = next(site for site in inventory.parents if site.kind == "block" and site.block == 0)
    network = next(site for site in inventory.parents if site.kind == "ffn" and site.block == 0)
    four, narrow, drop = (
        parse_choice(text) for text in ("quantize bits=4", "prune-neurons sparsity=0.5 then quantize bits=4", "drop")
    )
    plans = [
        Plan(),
        Plan.of(inventory, {block.name: drop}),
        Plan.of(inventory, {network.name: narrow}),
        Plan.of(inventory, dict.fromkeys(network.covers, four)),
    ]
    expected = [fresh(pico(name), plan, planned) for plan in plans]
    assert len({float(state.sum()) for state in expected}) == 4
    for before in range(4):
        for after in range(4):
            for index in (before, after):
                planned.swap(plans[index])
            assert torch.equal(states(planned), expected[after]), (before, after)


def test_only_what_differs_is_touched(pico: Folder, tmp_path: Path) -> None:
    planned = planned_model(pico("llama"), tmp_path)
    sites = [site for site in planned.inventory.leaves if site.kind == "linear"]
    four, eight = parse_choice("quantize bits=4"), parse_choice("quantize bits=8")
    plan = Plan.of(planned.inventory, {site.name: four for site in sites})
    assert planned.swap(plan) == len(sites)
    assert planned.swap(plan) == 0
    before = {name: p.data_ptr() for name, p in planned.model.named_parameters()}
    assert planned.swap(Plan.of(planned.inventory, {**dict(plan.entries), sites[2].name: eight})) == 1
    changed = {name for name, p in planned.model.named_parameters() if p.data_ptr() != before[name]}
    assert changed == {f"{sites[2].name}.weight"}
    dropped = Plan.of(
        planned.inventory, {**dict(plan.entries), sites[2].name: eight, "model.layers.1": parse_choice("drop")}
    )
    assert planned.swap(dropped) == 1


def test_neither_bank_nor_original_changes(pico: Folder, tmp_path: Path) -> None:
    """Parameters are exchanged, never written into."""
    planned = planned_model(pico("llama"), tmp_path)
    before = {name: tensor.clone() for name, tensor in planned.bank.parameters.items()}
    site = planned.inventory.leaves[1]
    four = parse_choice("quantize bits=4")
    planned.swap(Plan.of(planned.inventory, {site.name: four}))
    planned.swap(Plan.of(planned.inventory, {site.name: parse_choice("quantize bits=2")}))
    assert all(torch.equal(before[name], tensor) for name, tensor in planned.bank.parameters.items())
    planned.swap(Plan())
    assert all(torch.equal(before[name], tensor) for name, tensor in parameters_of(planned.model).items())


@pytest.mark.parametrize("make", [planned_model, streamed_model])
def test_a_norm_that_a_choice_changed_is_put_back(
    pico: Folder, tmp_path: Path, make: Callable[[Path, Path], PlannedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes after the choice at its site: another choice, the site's leaves, or nothing.

    The other site's norm stays.
    """
    planned = make(pico("llama"), tmp_path)
    bank, inventory = planned.bank, planned.inventory
    sites = [site for site in inventory.parents if site.block == 0 and norm_names(site)]
    assert {site.kind for site in sites} == {"attention", "ffn"}
    decoded = bank.decoded

    def with_norm(site: Site, choice: Choice) -> dict[str, Tensor]:
        values = dict(decoded(site, choice))
        if site.structured and "bits=4" in str(choice):
            values |= {name: 2 * bank.parameters[name].float() for name in norm_names(site)}
        return values

    monkeypatch.setattr(bank, "decoded", with_norm)
    original = states(planned)
    for site, other in (sites, sites[::-1]):
        four, three = (parse_choice(f"{METHODS[site.kind]} then quantize bits={bits}") for bits in (4, 3))
        beside = {other.name: parse_choice(f"{METHODS[other.kind]} then quantize bits=4")}
        leaf = {site.covers[0]: parse_choice("quantize bits=8")}
        for after in ({}, {site.name: three}, leaf, beside):
            plan = Plan.of(inventory, after)
            planned.swap(plan)
            expected = states(planned)
            planned.swap(Plan.of(inventory, {site.name: four, **beside}))
            assert not torch.equal(states(planned), expected)
            planned.swap(plan)
            assert torch.equal(states(planned), expected), (site.kind, after)
    planned.swap(Plan())
    assert torch.equal(states(planned), original)


def test_a_swap_that_was_interrupted_is_not_taken_for_whole(
    pico: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stopped, the next plan is put in place whole: matrices, norms, and the list of blocks."""
    planned = planned_model(pico("llama"), tmp_path)
    inventory = planned.inventory
    original = states(planned)
    networks = [site for site in inventory.parents if site.kind == "ffn"]
    awq, four = parse_choice("awq then quantize bits=4 group_size=16"), parse_choice("quantize bits=4")
    planned.bank.statistics = collect(
        planned.model, inventory, TOKENS, torch.ones_like(TOKENS), tmp_path / "statistics"
    )
    before = Plan.of(inventory, {networks[0].name: awq})
    after = Plan.of(inventory, {**dict.fromkeys(networks[0].covers, four), "model.layers.1": parse_choice("drop")})
    put, expected = planned.modules.put, []
    for plan in (before, after):
        planned.swap(plan)
        expected.append(states(planned))
    for stop in range(1, 8):
        planned.swap(before)
        written = []

        def some(values: Mapping[str, Tensor], stop: int = stop, written: list[str] = written) -> None:
            for name, value in values.items():
                if len(written) == stop:
                    raise KeyboardInterrupt
                written.append(name)
                put({name: value})

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(planned.modules, "put", some)
            planned.swap(after)
        for plan, wanted in ((Plan(), original), (after, expected[1]), (before, expected[0])):
            planned.swap(plan)
            assert torch.equal(states(planned), wanted), stop
