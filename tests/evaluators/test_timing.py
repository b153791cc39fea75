"""Timing of kernels and models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paredown.compressors.original.checkpoint import load_original
from paredown.deploy.engines.transformers import TorchModel
from paredown.evaluators import timing
from paredown.space.choice import KEEP, parse_choice


def test_models_are_timed_end_to_end(pico: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding and prompt of each; an encoder decodes nothing; the number of threads is left as it was."""
    monkeypatch.setattr(timing, "REPEATS", 3)
    threads = torch.get_num_threads()
    model = load_original(pico("llama"))
    times = timing.time_models({name: TorchModel(model, causal=True) for name in ("one", "other")})
    assert set(times) == {"one", "other"}
    for found in times.values():
        assert found.decode_ms and found.decode_ms > found.prefill_ms > 0
        assert found.decode_iqr is not None and min(found.decode_iqr, found.prefill_iqr) >= 0
    assert timing.time_models({"kept": TorchModel(model, causal=False)})["kept"].decode_ms is None
    assert torch.get_num_threads() == threads


def test_a_kernel_has_a_time_for_a_row_alone_and_in_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of a prompt shares the reading of the weights, so it takes less time than a row alone."""
    monkeypatch.setattr(timing, "MOST_COPIES", 1)
    for choice in (KEEP, parse_choice("quantize bits=4 group_size=32")):
        alone, in_prompt = timing.time_kernel(choice, (64, 32), torch.bfloat16)
        assert alone > in_prompt > 0


def test_more_models_take_longer() -> None:
    """Proportional to their number; decoding counts for models that decode."""
    assert timing.expected_seconds(6, 1.0, 2.0) == pytest.approx(2 * timing.expected_seconds(3, 1.0, 2.0))
    assert timing.expected_seconds(3, 1.0, 2.0) > timing.expected_seconds(3, 1.0, 0.0) > 0
