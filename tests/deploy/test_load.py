"""The winner made real: a written model loads, and computes what was scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from paredown.compressors.original.checkpoint import config_of, load_original
from paredown.compressors.original.find_sites import inventory_of
from paredown.deploy import verify_process
from paredown.deploy.apply import apply_plan, encoded
from paredown.deploy.engines.transformers import TorchModel, open_folder
from paredown.deploy.formats import formats
from paredown.deploy.load import load
from paredown.deploy.verify import check_stored, scored_model
from paredown.space.choice import parse_choice
from paredown.space.errors import CheckpointError
from paredown.space.layouts import site_fault
from paredown.space.plan import Plan
from paredown.space.targets.target import targets
from shared import structured
from shared.written import applied, file_of, scored, tokens

FAMILIES = ("llama", "qwen2", "mistral", "gpt2", "opt", "bert")
Folder = Callable[[str], Path]

STRUCTURES = {
    "paredown": (
        {
            "attention": "prune-heads sparsity=0.5 algorithm=reconstruct",
            "ffn": "prune-neurons sparsity=0.5 algorithm=reconstruct",
        },
        {"attention": "awq then quantize bits=3 algorithm=gptq", "ffn": "awq then quantize bits=3 algorithm=gptq"},
        {"attention": "prune-heads sparsity=0.5 then quantize bits=8", "ffn": "drop"},
    ),
    "transformers": ({"attention": "awq alpha=0.4 then quantize bits=4", "ffn": "awq alpha=0.4 then quantize bits=4"},),
}
"""Choices of attentions and networks; a family that cannot take one keeps it."""


@pytest.mark.parametrize(("drop", "narrow"), [(0, True), (None, False)])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_own_layout_computes_what_was_scored(
    pico: Folder, tmp_path: Path, name: str, drop: int | None, narrow: bool
) -> None:
    result, plan, inventory = applied(pico(name), tmp_path / "out", "paredown", drop=drop, narrow=narrow)
    assert result.size_bytes == plan.size_bytes(inventory) < result.original_bytes
    model = load(result.folder, torch.float32)
    logits = TorchModel(model, causal=inventory.causal).outputs(tokens())
    assert structured.relative(logits, expected := scored(pico(name), plan, inventory, tokens())) < 1e-5
    if inventory.causal:
        assert structured.relative(verify_process.incremental(TorchModel(model, causal=True), tokens()), logits) < 1e-5
        assert model.generate(tokens()[:, :4], max_new_tokens=3, do_sample=False).shape == (2, 7)
    fast = TorchModel(load(result.folder), causal=inventory.causal).outputs(tokens()).float()
    assert structured.relative(fast, expected) < 0.1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_transformers_loads_what_was_scored(pico: Folder, tmp_path: Path, name: str) -> None:
    result, plan, inventory = applied(pico(name), tmp_path / "out", "transformers")
    assert result.size_bytes == plan.size_bytes(inventory) < result.original_bytes
    check_stored(result.folder, inventory, plan, formats["transformers"])
    config = json.loads((result.folder / "config.json").read_text())
    assert ("quantization_config" in config) == any("quantize" in str(choice) for _, choice in plan.entries)
    opened = open_folder(result.folder, torch.float32, causal=inventory.causal)
    assert not opened.missing and not opened.unexpected
    logits = opened.outputs(tokens())
    assert structured.relative(logits, scored(pico(name), plan, inventory, tokens())) < 1e-5
    if inventory.causal:
        assert structured.relative(verify_process.incremental(opened, tokens()), logits) < 1e-5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("target", "index"), [(target, i) for target, all_of in STRUCTURES.items() for i in range(len(all_of))]
)
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_structures_compute_what_was_scored(pico: Folder, tmp_path: Path, name: str, target: str, index: int) -> None:
    """Narrower and scaled attentions and networks, calibrated: bytes, names, logits, cached decoding and generation."""
    folder, bank = pico(name), structured.bank_of(pico(name), tmp_path)
    inventory = inventory_of(folder)
    wanted = {site.name: parse_choice(STRUCTURES[target][index].get(site.kind, "keep")) for site in inventory.sites}
    plan = Plan.of(
        inventory,
        {n: choice for n, choice in wanted.items() if site_fault(inventory[n], choice, targets[target]) is None},
    )
    plan.check(inventory, targets[target])
    result = apply_plan(file_of(folder, plan, target), folder, tmp_path / "out", tensors_of=bank.tensors)
    assert result.size_bytes == plan.size_bytes(inventory)
    model = load(result.folder, torch.float32)
    logits = TorchModel(model, causal=inventory.causal).outputs(tokens())
    reference = scored_model(
        load_original(folder), inventory, plan, encoded(inventory, plan, bank.parameters, bank.tensors)
    )
    assert structured.relative(logits, TorchModel(reference, causal=inventory.causal).outputs(tokens())) < 1e-5
    if inventory.causal:
        assert structured.relative(verify_process.incremental(TorchModel(model, causal=True), tokens()), logits) < 1e-5
        assert model.generate(tokens()[:, :4], max_new_tokens=3, do_sample=False).shape == (2, 7)


def test_plain_from_pretrained_refuses_our_own_layout(pico: Folder, tmp_path: Path) -> None:
    result, _, _ = applied(pico("llama"), tmp_path / "out", "paredown", drop=None)
    with pytest.raises(OSError, match="model.safetensors"):
        AutoModelForCausalLM.from_pretrained(result.folder)
    with pytest.raises(CheckpointError, match="compressed already"):
        config_of(result.folder)


def test_a_bfloat16_original_keeps_its_bytes(pico: Folder, tmp_path: Path) -> None:
    load_original(pico("llama")).to(torch.bfloat16).save_pretrained(tmp_path / "bf16")
    for target in ("paredown", "transformers"):
        out = tmp_path / target
        result, plan, inventory = applied(tmp_path / "bf16", out, target, drop=1)
        logits = TorchModel(load(out, torch.float32), causal=True).outputs(tokens())
        assert result.size_bytes == plan.size_bytes(inventory)
        assert structured.relative(logits, scored(tmp_path / "bf16", plan, inventory, tokens())) < 1e-5
