"""Statistics of a model's inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paredown.compressors.calibration.collect import collect
from paredown.compressors.original.checkpoint import load_original
from paredown.compressors.original.find_sites import inventory_of
from paredown.space.errors import EvaluationError


@pytest.mark.parametrize("weight", [1e25, float("nan")])
def test_inputs_without_a_finite_second_moment_are_refused(
    pico: Callable[[str], Path], tmp_path: Path, weight: float
) -> None:
    """One line names the first matrix that reads them; a later run starts over, and no hook is left on the model."""
    model, tokens = load_original(pico("llama")), torch.arange(2, 34).view(2, 16)
    up, before = (
        model.get_submodule("model.layers.1.mlp.up_proj"),
        model.get_submodule("model.layers.1.mlp.up_proj").weight.data,
    )
    up.weight.data = torch.full_like(before, weight)
    with pytest.raises(
        EvaluationError, match=r"^the inputs of model\.layers\.1\.mlp\.down_proj have no finite second moment .*; check"
    ):
        collect(model, inventory_of(pico("llama")), tokens, torch.ones_like(tokens), tmp_path)
    up.weight.data = before
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    found = collect(model, inventory_of(pico("llama")), tokens, torch.ones_like(tokens), tmp_path)
    assert torch.isfinite(found["model.layers.1.mlp.down_proj"]["second_moment"]).all()
