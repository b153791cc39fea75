"""A model that starts at a block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paredown.compressors.bank.bank import Bank
from paredown.compressors.model.block_prefix import Prefix
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.original.checkpoint import config_of, load_original, parameters_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.compressors.original.lazy_weights import open_original
from paredown.evaluators.quality import Teacher
from paredown.evaluators.sequences import Sequences
from paredown.space.choice import parse_choice
from paredown.space.plan import Plan

Folder = Callable[[str], Path]
# 65 sequences of 48 tokens are two batches; of some, half is padding.
MASK = (torch.arange(48) < torch.where(torch.arange(65) % 3 == 0, 24, 48)[:, None]).long()
TEXTS = Sequences(
    tokens=torch.randint(2, 128, (65, 48), generator=torch.Generator().manual_seed(0)) * MASK,
    mask=MASK,
    document=torch.arange(65),
)


def planned_model(folder: Path, bank: Path, *, streamed: bool) -> PlannedModel:
    inventory = inventory_of(folder)
    if streamed:
        model, weights = open_original(folder, config_of(folder), memory_bytes=1)
        return PlannedModel(model, inventory, Bank(bank, weights, cache_bytes=0))
    model = load_original(folder)
    return PlannedModel(
        model, inventory, Bank(bank, {name: tensor.detach() for name, tensor in parameters_of(model).items()})
    )


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bert", "qwen2"])
def test_losses_are_those_of_the_whole_model(pico: Folder, tmp_path: Path, name: str, streamed: bool) -> None:
    """The result is right whatever changes in the first block or after it, drops included, in any order of blocks.

    No block before it runs.
    """
    planned = planned_model(pico(name), tmp_path, streamed=streamed)
    inventory = planned.inventory
    teacher = Teacher(planned.model, TEXTS, causal=inventory.causal)
    prefix = Prefix(planned, lambda: teacher.measure(planned.model))
    ran: list[int] = []
    for index, block in enumerate(prefix._originals):
        block.register_forward_pre_hook(lambda _, inputs, index=index: ran.append(index))
    for start in (1, 0, 1):
        assert prefix.walk_to(start) == (0.5 if start else 0)
        inside = [site for site in inventory.sites if site.block == start]
        linear = next(site for site in inside if site.kind == "linear")
        network = next(site for site in inside if site.kind == "ffn")
        block = next(site for site in inside if site.kind == "block")
        for site, text in (
            (linear, "quantize bits=2"),
            (network, "prune-neurons sparsity=0.5"),
            (block, "drop"),
            (linear, "quantize bits=3"),
        ):
            planned.swap(Plan.of(inventory, {site.name: parse_choice(text)}))
            ran.clear()
            with prefix.skipping():
                loss = teacher.measure(planned.model).mean
            assert set(ran) == {start, 1} - ({start} if site is block else set())
            whole = teacher.measure(planned.model).mean
            assert whole > 0
            assert loss == pytest.approx(whole, rel=1e-6)


def test_walking_on_runs_only_what_lies_between(pico: Folder, tmp_path: Path) -> None:
    """A plan in place is taken out first; to stay costs nothing."""
    planned = planned_model(pico("llama"), tmp_path, streamed=False)
    teacher = Teacher(planned.model, TEXTS, causal=True)
    runs: list[int] = []
    prefix = Prefix(planned, lambda: runs.append(len(runs)) or teacher.measure(planned.model))
    planned.swap(Plan.of(planned.inventory, {"model.layers.0": parse_choice("drop")}))
    assert [prefix.walk_to(block) for block in (0, 1, 1, 2, 0)] == [0.0, 0.5, 0.0, 0.5, 0.0]
    assert len(runs) == 2
    assert prefix.blocks == 2
