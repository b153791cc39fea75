"""Plans compressed in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from paredown.compressors.bank.bank import Bank
from paredown.compressors.bank.encoding import encode_matrix
from paredown.compressors.calibration.collect import collect, run_base
from paredown.compressors.model.lockstep import crew
from paredown.compressors.model.original_inputs import original_inputs
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.model.sequential import Correction, in_order, is_calibrated, ordered_bank
from paredown.compressors.original.checkpoint import config_of, is_placeholder, load_original, parameters_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.compressors.original.lazy_weights import open_original
from paredown.space.choice import parse_choice
from paredown.space.plan import Plan

Folder = Callable[[str], Path]
TOKENS = torch.randint(2, 128, (12, 48), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(48) < torch.tensor([48, 20, 48, 33] * 3)[:, None]).long()
CHOICE = parse_choice("quantize bits=3 group_size=16 algorithm=gptq")
FREE = parse_choice("quantize bits=3 group_size=16")


def prepared(folder: Path, bank: Path) -> PlannedModel:
    model, inventory = load_original(folder), inventory_of(folder)
    parameters = {name: tensor.detach().clone() for name, tensor in parameters_of(model).items()}
    statistics = collect(model, inventory, TOKENS * MASK, MASK, bank / "statistics")
    return PlannedModel(model, inventory, Bank(bank, parameters, statistics, "test"))


def uniform(planned: PlannedModel, choice: str) -> Plan:
    parsed = parse_choice(choice)
    return Plan.of(planned.inventory, {site.name: parsed for site in planned.inventory.leaves if site.kind == "linear"})


def ordered(planned: PlannedModel, plan: Plan, work: Path) -> Bank:
    work.mkdir(exist_ok=True)
    inputs = original_inputs(planned, TOKENS * MASK, MASK, work)
    return in_order(planned, plan, planned.bank, TOKENS * MASK, MASK, inputs)


@torch.no_grad()
def seen(planned: PlannedModel, module: str) -> Tensor:
    """What a module reads under the plan in place, padding left out."""
    found: list[Tensor] = []
    hook = planned.model.get_submodule(module).register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    causal = planned.inventory.causal
    planned.model(input_ids=TOKENS * MASK, **({"use_cache": False} if causal else {"attention_mask": MASK}))
    hook.remove()
    return found[0].reshape(-1, found[0].shape[-1])[MASK.flatten().bool()]


def test_the_nearest_matrix_is_that_of_least_squares() -> None:
    """Damped least squares as one system of equations: one entry gives the damping, the others follow."""
    generator = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(50, 6, generator=generator), torch.randn(4, 6, generator=generator)
    changed = inputs @ torch.randn(6, 6, generator=generator) * 0.3 + 0.1 * torch.randn(50, 6, generator=generator)
    moment = changed.T @ changed / 50
    with crew(2) as threads:
        found = Correction(inputs, changed.split(20), moment, threads).of(weight)
        same = Correction(inputs, inputs.split(20), inputs.T @ inputs / 50, threads).of(weight)
    pull = (inputs @ weight.T - changed @ found.T).T @ changed / 50  # = damping * (found - weight)
    damping = float((pull * (found - weight)).sum() / (found - weight).square().sum())
    assert damping > 0
    firm = np.sqrt(50 * damping)
    rows = np.vstack([changed.numpy(), firm * np.eye(6)])
    wanted = np.vstack([(inputs @ weight.T).numpy(), firm * weight.T.numpy()])
    assert np.allclose(found.numpy().T, np.linalg.lstsq(rows, wanted, rcond=None)[0], atol=1e-4)
    assert torch.allclose(same, weight, atol=1e-6)


@pytest.mark.parametrize(("tokens", "share"), [(40, 1.0), (400, 0.6)])
def test_the_nearest_matrix_is_nearer_on_other_tokens_too(tokens: int, share: float) -> None:
    """It makes up for what the changed inputs have in common, and is not fitted to the noise of few tokens."""
    generator = torch.Generator().manual_seed(0)
    weight, turn = (
        torch.randn(8, 32, generator=generator),
        torch.eye(32) * 0.7 + 0.05 * torch.randn(32, 32, generator=generator),
    )

    def drawn(count: int) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(count, 32, generator=generator)
        return inputs, inputs @ turn + 0.2 * torch.randn(count, 32, generator=generator)

    inputs, changed = drawn(tokens)
    with crew(1) as threads:
        found = Correction(inputs, [changed], changed.T @ changed / tokens, threads).of(weight)
    inputs, changed = drawn(2000)
    before, after = (float((changed @ each.T - inputs @ weight.T).square().mean()) for each in (weight, found))
    assert after < share * before


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bert", "qwen2"])
def test_each_matrix_makes_up_for_those_before(pico: Folder, tmp_path: Path, name: str) -> None:
    """The output of the last block's last matrix comes nearer to the original's.

    Every matrix that is calibrated has a record.
    """
    planned = prepared(pico(name), tmp_path / "bank")
    plan = uniform(planned, str(CHOICE))
    last = [site.name for site in planned.inventory.leaves if site.block == 1][-1]
    planned.swap(Plan())
    truth = seen(planned, last)
    planned.swap(plan)
    alone = (seen(planned, last) - truth).square().mean()
    bank = ordered(planned, plan, tmp_path / "work")
    assert all(bank.holds(site, choice) for site, choice in plan.decided(planned.inventory))
    planned.swap(plan, bank)
    assert (seen(planned, last) - truth).square().mean() < alone
    planned.swap(plan)
    assert (seen(planned, last) - truth).square().mean() == alone


def test_the_first_matrices_are_as_they_were(pico: Folder, tmp_path: Path) -> None:
    """Nothing before them is compressed, so nothing is to be made up for."""
    planned = prepared(pico("llama"), tmp_path / "bank")
    plan = uniform(planned, str(CHOICE))
    bank = ordered(planned, plan, tmp_path / "work")
    first, later = (
        planned.inventory["model.layers.0.self_attn.q_proj"],
        planned.inventory["model.layers.1.mlp.down_proj"],
    )
    for site, same in ((first, True), (later, False)):
        one, other = bank.tensors(site, CHOICE), planned.bank.tensors(site, CHOICE)
        assert all(torch.equal(one[key], other[key]) for key in one) == same


def test_what_is_compressed_is_what_runs(pico: Folder, tmp_path: Path) -> None:
    """A matrix is calibrated on the very inputs that the finished plan gives it."""
    planned = prepared(pico("llama"), tmp_path / "bank")
    plan = uniform(planned, str(CHOICE))
    given: list[Tensor] = []
    module = planned.model.get_submodule("model.layers.1.mlp.down_proj")
    hook = module.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    bank = ordered(planned, plan, tmp_path / "work")
    hook.remove()
    planned.swap(plan, bank)
    compressing = given[-1].reshape(-1, given[-1].shape[-1])[MASK.flatten().bool()]
    assert torch.allclose(seen(planned, "model.layers.1.mlp.down_proj"), compressing, atol=1e-5)


def test_records_in_order_are_found_again(pico: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pass gives the same; once they are there none is needed; those of another plan are others."""
    planned = prepared(pico("llama"), tmp_path / "bank")
    plan = uniform(planned, str(CHOICE))
    bank = ordered(planned, plan, tmp_path / "work")
    site = planned.inventory["model.layers.1.mlp.down_proj"]
    first = {key: tensor.clone() for key, tensor in bank.tensors(site, CHOICE).items()}
    bank.path(site, CHOICE).unlink()
    again = ordered(planned, plan, tmp_path / "work").tensors(site, CHOICE)
    assert all(torch.equal(again[key], first[key]) for key in first)
    other = Plan.of(planned.inventory, {**dict(plan.entries), "model.layers.0.mlp.up_proj": FREE})
    assert not ordered_bank(planned.bank, other).holds(site, CHOICE)
    monkeypatch.setattr("paredown.compressors.model.sequential.run_in_parts", None)
    ordered(planned, plan, tmp_path / "work")


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_a_streamed_model_gives_the_same_records(pico: Folder, tmp_path: Path, name: str) -> None:
    """Byte by byte, with a feed-forward network of another structure, and an embedding outside the blocks."""
    found = []
    for streamed in (False, True):
        root = tmp_path / str(streamed)
        model, parameters = open_original(pico(name), config_of(pico(name)), 1 if streamed else 1 << 40)
        planned = PlannedModel(
            model,
            inventory_of(pico(name)),
            Bank(root, parameters, None, "test", cache_bytes=0 if streamed else 1 << 20),
        )
        assert bool(planned.stream) == streamed
        planned.bank.statistics = collect(planned.model, planned.inventory, TOKENS * MASK, MASK, root / "statistics")
        network = next(site for site in planned.inventory.parents if site.kind == "ffn" and site.block == 0)
        others = {
            network.name: parse_choice(f"prune-neurons sparsity=0.5 then {CHOICE}"),
            planned.inventory.leaves[0].name: FREE,
        }
        plan = Plan.of(planned.inventory, {**dict(uniform(planned, str(CHOICE)).entries), **others})
        bank = ordered(planned, plan, tmp_path / "work")
        paths = [bank.path(site, choice) for site, choice in plan.decided(planned.inventory) if choice.needs]
        found.append({path.name: path.read_bytes() for path in paths})
        planned.swap(plan, bank)
        with torch.no_grad():
            run_base(planned.model, TOKENS * MASK, MASK, causal=planned.inventory.causal)
        inside = [
            planned.model.get_parameter(f"{site.members[0].module}.weight")
            for site in planned.inventory.leaves
            if site.block == 1
        ]
        assert all(is_placeholder(parameter) == streamed for parameter in inside)
    assert found[0] == found[1]
    assert len(found[0]) > 4


def test_a_site_is_stored_when_its_last_matrix_is_done(pico: Folder, tmp_path: Path) -> None:
    """What is held while the pass goes on does not grow with the model."""
    planned = prepared(pico("llama"), tmp_path / "bank")
    plan = uniform(planned, str(CHOICE))
    first, later = planned.inventory["model.layers.0.mlp.down_proj"], planned.inventory["model.layers.1.mlp.down_proj"]
    bank, seen_there = ordered_bank(planned.bank, plan), []
    last = planned.model.get_submodule("model.layers.1")
    inputs = original_inputs(planned, TOKENS * MASK, MASK, tmp_path)
    hook = last.register_forward_pre_hook(
        lambda *_: seen_there.append((bank.holds(first, CHOICE), bank.holds(later, CHOICE)))
    )
    in_order(planned, plan, planned.bank, TOKENS * MASK, MASK, inputs)
    hook.remove()
    assert seen_there == [(True, False)]
    assert bank.holds(later, CHOICE)


def test_data_free_plans_are_left_alone(pico: Folder, tmp_path: Path) -> None:
    planned = prepared(pico("llama"), tmp_path / "bank")
    plan = uniform(planned, str(FREE))
    assert not is_calibrated(plan, planned.inventory)
    bank = ordered(planned, plan, tmp_path / "work")
    site = planned.inventory.leaves[-1]
    assert bank.path(site, FREE) == planned.bank.path(site, FREE)


def test_structures_stay_as_the_bank_has_them(pico: Folder, tmp_path: Path) -> None:
    """And the matrices after them make up for what they changed."""
    planned = prepared(pico("llama"), tmp_path / "bank")
    narrow = parse_choice(f"prune-neurons sparsity=0.5 then {CHOICE}")
    network = next(site for site in planned.inventory.parents if site.kind == "ffn" and site.block == 0)
    plan = Plan.of(planned.inventory, {**dict(uniform(planned, str(CHOICE)).entries), network.name: narrow})
    bank = ordered(planned, plan, tmp_path / "work")
    one, other = bank.tensors(network, narrow), planned.bank.tensors(network, narrow)
    assert all(torch.equal(one[key], other[key]) for key in one)
    planned.swap(plan, bank)
    assert torch.isfinite(seen(planned, "model.layers.1.mlp.down_proj")).all()


def test_nothing_stays_after_an_error(pico: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hook, and no half-compressed model: the next plan is put in place whole."""
    planned = prepared(pico("llama"), tmp_path / "bank")
    truth = seen(planned, "model.layers.1.mlp.down_proj")
    plan = uniform(planned, str(CHOICE))
    calls = []

    def failing(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) > 5:
            raise MemoryError
        return encode_matrix(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr("paredown.compressors.model.sequential.encode_matrix", failing)
        ordered(planned, plan, tmp_path / "work")
    planned.swap(Plan())
    assert torch.equal(seen(planned, "model.layers.1.mlp.down_proj"), truth)
    assert not any(module._forward_pre_hooks for module in planned.model.modules())
