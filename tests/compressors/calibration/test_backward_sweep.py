"""Inputs of layers, and the gradients of a loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors.calibration.backward_sweep import traces
from paredown.compressors.original.checkpoint import config_of, load_original
from paredown.compressors.original.find_sites import inventory_of
from paredown.compressors.original.lazy_weights import open_original
from paredown.space.errors import StudyError

Folder = Callable[[str], Path]
MASK = (torch.arange(20) < torch.tensor([20, 13, 20])[:, None]).long()
TOKENS = torch.randint(2, 128, (3, 20), generator=torch.Generator().manual_seed(0)) * MASK


def surprise(logits: Tensor, tokens: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="sum")


def first_states(states: Tensor, _: Tensor) -> Tensor:
    return states[:, :3].sum()


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bert"])
def test_a_small_change_of_a_weight_changes_the_loss_as_the_trace_says(pico: Folder, name: str) -> None:
    """The sum over tokens of gradient times output change is the weight's change times its own gradient."""
    model, inventory = load_original(pico(name)).double(), inventory_of(pico(name))
    members = [m for site in inventory.leaves if site.kind == "linear" and site.block is not None for m in site.members]
    loss = surprise if inventory.causal else first_states
    modules = {member.module: model.get_submodule(member.module) for member in members}
    found = traces(model, modules, TOKENS, MASK, loss, causal=inventory.causal)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    weights = [model.get_parameter(f"{member.module}.weight").requires_grad_(True) for member in members]
    total = torch.zeros((), dtype=torch.double)
    for tokens, mask in zip(TOKENS, MASK, strict=True):
        tokens = tokens[: int(mask.sum())]
        output = model(tokens[None]).logits if inventory.causal else model.base_model(tokens[None]).last_hidden_state
        total = total + loss(output[0], tokens)
    for member, gradient in zip(members, torch.autograd.grad(total, weights), strict=True):
        trace = found[member.module]
        assert trace.lengths == (20, 13, 20)
        assert len(trace.inputs) == len(trace.gradients) == 53
        change = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
        along = float(((trace.inputs @ (change if member.transposed else change.T)) * trace.gradients).sum())
        assert along == pytest.approx(float((gradient * change).sum()), rel=1e-4, abs=1e-4), member.module


def test_a_streamed_model_has_no_backward_sweep(pico: Folder) -> None:
    model, _ = open_original(pico("llama"), config_of(pico("llama")), memory_bytes=1)
    with pytest.raises(StudyError, match="whole model in memory; raise memory, or say sensitivity: single-site"):
        traces(
            model, {"down": model.get_submodule("model.layers.0.mlp.down_proj")}, TOKENS, MASK, surprise, causal=True
        )
