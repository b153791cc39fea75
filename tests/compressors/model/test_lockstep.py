"""A forward pass in parts that meet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from paredown.compressors.bank.bank import Bank
from paredown.compressors.calibration.collect import collect, run_base
from paredown.compressors.model import lockstep
from paredown.compressors.model.lockstep import crew, parts_of, run_in_parts
from paredown.compressors.model.original_inputs import original_inputs
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.model.sequential import in_order
from paredown.compressors.original.checkpoint import config_of, is_placeholder
from paredown.compressors.original.find_sites import inventory_of
from paredown.compressors.original.lazy_weights import open_original
from paredown.space.choice import parse_choice
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan

Folder = Callable[[str], Path]
TOKENS = torch.randint(2, 128, (7, 48), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(48) < torch.tensor([48, 20, 48, 33, 48, 48, 41])[:, None]).long()
DOWN = {
    "llama": "model.layers.1.mlp.down_proj",
    "gpt2": "transformer.h.1.mlp.c_proj",
    "bert": "bert.encoder.layer.1.output.dense",
}


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four parts of at most two sequences, products in blocks that do not divide the widths."""
    monkeypatch.setattr(lockstep, "PART_TOKENS", 100)
    monkeypatch.setattr(lockstep, "BLOCK", 24)
    monkeypatch.setattr("paredown.compressors.model.sequential.BLOCK", 24)


def planned_model(folder: Path, bank: Path, *, streamed: bool) -> PlannedModel:
    model, parameters = open_original(folder, config_of(folder), 1 if streamed else 1 << 40)
    return PlannedModel(
        model, inventory_of(folder), Bank(bank, parameters, None, "test", cache_bytes=0 if streamed else 1 << 20)
    )


def test_products_are_those_of_the_whole() -> None:
    """For unequal parts, equal parts and different parts; bit-identical for any number of threads."""
    generator = torch.Generator().manual_seed(0)
    left, right = ([torch.randn(n, width, generator=generator) for n in (5, 9, 1)] for width in (50, 31))
    found = []
    for workers in (1, 2, 4):
        with crew(workers) as threads:
            found.append((threads.product(left, left), threads.product(left, right)))
            assert threads.map(len, left) == [5, 9, 1]
    assert torch.allclose(found[0][0], torch.cat(left).T @ torch.cat(left), atol=1e-5)
    assert torch.allclose(found[0][1], torch.cat(left).T @ torch.cat(right), atol=1e-5)
    assert torch.equal(found[0][0], found[0][0].T)
    assert all(torch.equal(one, other) for each in found for one, other in zip(each, found[0], strict=True))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_all_parts_meet_before_a_module_runs(pico: Folder, tmp_path: Path, name: str, streamed: bool) -> None:
    """Blocks run in the model's order on the inputs of all plans; the states are those of a pass of the whole model."""
    planned = planned_model(pico(name), tmp_path, streamed=streamed)
    inventory = planned.inventory
    names = [m.module for s in inventory.leaves if s.kind == "linear" and s.block is not None for m in s.members]
    met: list[tuple[str, int]] = []

    def meeting(module: str) -> Callable[[Sequence[Tensor]], None]:
        return lambda given: met.append(
            (module, sum(states.reshape(-1, states.shape[-1]).shape[0] for states in given))
        )

    with torch.no_grad():
        whole = run_base(planned.model, TOKENS * MASK, MASK, causal=inventory.causal)
    found = []
    for workers in (1, 3):
        met.clear()
        found.append(
            run_in_parts(planned, TOKENS * MASK, MASK, {planned.modules[n]: meeting(n) for n in names}, workers)
        )
        assert met == [(name, TOKENS.numel()) for name in names]
    assert len(found[0]) == len(parts_of(TOKENS)) == 4
    assert torch.allclose(torch.cat(found[0])[MASK.bool()], whole[MASK.bool()], atol=1e-4)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert not any(module._forward_pre_hooks for module in (planned.modules[name] for name in names))
    assert all(
        is_placeholder(parameter) == streamed for block in planned.modules.blocks for parameter in block.parameters()
    )


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("where", ["meeting", "part"])
def test_no_thread_is_left_after_an_error(pico: Folder, tmp_path: Path, streamed: bool, where: str) -> None:
    """Neither when a meeting fails nor when a part does; the next pass is as any other."""
    planned = planned_model(pico("llama"), tmp_path, streamed=streamed)
    module = planned.modules[DOWN["llama"]]
    expected = run_in_parts(planned, TOKENS, MASK, {}, 2)
    before = threading.active_count()

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    hook = module.register_forward_pre_hook(fail) if where == "part" else None
    with pytest.raises(MemoryError, match="no room"):
        run_in_parts(planned, TOKENS, MASK, {module: fail} if where == "meeting" else {}, 2)
    assert threading.active_count() == before
    if hook:
        hook.remove()
    assert all(
        is_placeholder(parameter) == streamed for block in planned.modules.blocks for parameter in block.parameters()
    )
    found = run_in_parts(planned, TOKENS, MASK, {}, 2)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_parts_that_take_different_ways_are_refused(pico: Folder, tmp_path: Path) -> None:
    """As texts might that different experts read."""
    planned = planned_model(pico("llama"), tmp_path, streamed=False)
    down, attention = planned.modules[DOWN["llama"]], planned.modules["model.layers.0.self_attn"]
    seen: list[int] = []
    hook = attention.register_forward_pre_hook(
        lambda *_: seen.append(1) or (down(torch.zeros(1, 64)) and None if len(seen) == 1 else None)
    )
    with pytest.raises(EvaluationError, match="does not run the same layers for all texts"):
        run_in_parts(
            planned,
            TOKENS,
            MASK,
            {down: lambda _: None, planned.modules["model.layers.0.self_attn.o_proj"]: lambda _: None},
            2,
        )
    hook.remove()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_records_are_the_same_on_any_number_of_cores(pico: Folder, tmp_path: Path, name: str, streamed: bool) -> None:
    """Byte for byte with 1, 2 and 4 workers, and so are the inputs on disk."""
    found = []
    for workers in (1, 2, 4):
        planned = planned_model(pico(name), tmp_path / str(workers), streamed=streamed)
        inventory = planned.inventory
        planned.bank.statistics = collect(
            planned.model, inventory, TOKENS * MASK, MASK, tmp_path / str(workers) / "statistics"
        )
        texts = ("quantize bits=3 group_size=16 algorithm=gptq", "lowrank rank=8 algorithm=whitened")
        choices = [parse_choice(text) for text in texts]
        linear = [site for site in inventory.leaves if site.kind == "linear"]
        plan = Plan.of(inventory, {site.name: choices[i % 5 == 3] for i, site in enumerate(linear)})
        work = tmp_path / f"work {workers}"
        work.mkdir()
        inputs = original_inputs(planned, TOKENS * MASK, MASK, work, workers)
        bank = in_order(planned, plan, planned.bank, TOKENS * MASK, MASK, inputs, workers)
        files = [bank.path(site, choice) for site, choice in plan.decided(inventory) if choice.needs] + sorted(
            work.iterdir()
        )
        found.append([path.read_bytes() for path in files])
    assert len(found[0]) > len(linear)
    assert found[0] == found[1] == found[2]
