"""The twin with outlier channels is the same function."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from shared import ROOT

GAIN = 30.0


@pytest.fixture(scope="module")
def script() -> dict[str, Callable[..., int]]:
    return runpy.run_path(str(ROOT / "scripts" / "make_outlier_twin.py"))


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_the_twin_computes_the_same_with_larger_channels(
    name: str,
    script: dict[str, Callable[..., int]],
    pico: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Read back from its folder; the states behind a norm are larger in the given share of channels only."""
    monkeypatch.setattr(
        "sys.argv", ["make_outlier_twin.py", str(pico(name)), str(tmp_path / "twin"), "--share", "0.1", "--seed", "3"]
    )
    assert script["main"]() == 0
    models = [
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for folder in (pico(name), tmp_path / "twin")
    ]
    seen: list[list[torch.Tensor]] = [[], []]
    for model, outputs in zip(models, seen, strict=True):
        for part in model.modules():
            if type(part).__name__.endswith("Norm"):
                part.register_forward_hook(lambda _, inputs, output, outputs=outputs: outputs.append(output))
    tokens = torch.arange(48).view(2, 24) % 100
    with torch.no_grad():
        before, after = (model(input_ids=tokens).logits for model in models)
    assert (before - after).abs().max() <= 1e-4 * before.abs().max()
    assert len(seen[0]) == len(seen[1]) == 5  # two in each block, and the final one
    for index, (one, other) in enumerate(zip(*seen, strict=True)):
        ratio = (other / one).flatten(0, 1).median(0).values
        larger = (ratio - GAIN).abs() < 0.1
        assert int(larger.sum()) == (3 if index < 4 else 0)
        assert torch.allclose(ratio[~larger], torch.ones(len(ratio) - int(larger.sum())), atol=1e-2)
