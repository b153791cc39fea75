"""Times of kernels and of whole models, taken on one thread."""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import deepcopy
from typing import Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import PreTrainedModel

from paredown.compressors.bank.bank import one_thread
from paredown.compressors.bank.encoding import encode_matrix
from paredown.compressors.model.assemble import resident_bytes
from paredown.compressors.model.kernels import runnable
from paredown.evaluators.door import finite
from paredown.space.choice import Choice, Shape
from paredown.space.statistics import Statistics
from paredown.space.system.interruption import stop_if_asked

PROMPT_TOKENS = 128
"""Tokens of the prompt in a prefill timing."""

DECODED_TOKENS = 24
"""Tokens decoded in each decode timing."""

REPEATS = 15
"""Repeats of each measurement, besides a warm-up."""

COLD_BYTES = 16 << 20
"""Bytes of extra copies of a layer that a kernel is timed over in turn, so that its weights are not in a CPU cache."""

MOST_COPIES = 48
"""Upper bound on the number of those copies."""


class Running(Protocol):
    """A model that an engine runs, as far as its timing needs it.

    Attributes:
        causal: Whether it decodes tokens.
        vocabulary: Number of tokens that it knows.
        longest: Most tokens of a sequence.
    """

    causal: bool

    @property
    def vocabulary(self) -> int: ...

    @property
    def longest(self) -> int: ...

    def prefill(self, tokens: Tensor) -> Tensor:
        """Runs a prompt; a causal model keeps its cache."""

    def decode(self, token: Tensor) -> Tensor:
        """Runs one more token after what the cache holds."""


class Wrap(Protocol):
    """Gives an assembled model to the engine of a target."""

    def __call__(self, model: PreTrainedModel, *, causal: bool) -> Running:
        """The model, as the engine runs it."""


class Timing(BaseModel):
    """Times per token, medians with interquartile ranges [ms]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decode_ms: float | None = Field(description="time of a token decoded with a cache; None for encoders")
    decode_iqr: float | None
    prefill_ms: float = Field(description="time per token of a prompt of 128")
    prefill_iqr: float


def expected_seconds(models: int, prefill_ms: float, decode_ms: float) -> float:
    """Estimated duration of `time_models` [s] for models with these times per token."""
    return models * (REPEATS + 1) * (PROMPT_TOKENS * prefill_ms + DECODED_TOKENS / 5 * decode_ms) / 1000


@one_thread()
@torch.inference_mode()
def time_models(models: Mapping[str, Running]) -> dict[str, Timing]:
    """End-to-end times of several models on one thread.

    The models take turns, so that a busy machine slows all of them equally.
    """
    generator = torch.Generator().manual_seed(0)
    decode: dict[str, list[float]] = {name: [] for name in models}
    prefill: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(REPEATS + 1):
        for name, model in models.items():
            stop_if_asked()
            length = min(PROMPT_TOKENS, model.longest - DECODED_TOKENS)
            prompt = torch.randint(model.vocabulary, (1, length), generator=generator)
            started = time.perf_counter()
            model.prefill(prompt)
            taken = [(time.perf_counter() - started) / length]
            steps = []
            for _ in range(DECODED_TOKENS if model.causal and repeat % 5 == 0 else 0):
                started = time.perf_counter()
                model.decode(prompt[:, -1:])
                steps.append(time.perf_counter() - started)
            if repeat:
                prefill[name] += taken
            decode[name] += steps[2:]
    return {name: _timing(decode[name], prefill[name]) for name in models}


def _timing(decode: list[float], prefill: list[float]) -> Timing:
    def middle(values: list[float]) -> tuple[float, float]:
        low, median, high = np.quantile(np.array(values) * 1e3, [0.25, 0.5, 0.75])
        return finite(median, "time"), float(high - low)

    return Timing(
        decode_ms=middle(decode)[0] if decode else None,
        decode_iqr=middle(decode)[1] if decode else None,
        prefill_ms=middle(prefill)[0],
        prefill_iqr=middle(prefill)[1],
    )


def expected_kernel_seconds(shape: Shape, dtype: torch.dtype, flops_per_second: float) -> float:
    """Estimated duration of the products that `time_kernel` runs with a dense matrix [s]."""
    parameters = shape[0] * shape[1]
    turns = 1 + _copies(dtype.itemsize * parameters) + REPEATS
    return turns * (1 + PROMPT_TOKENS) * 2 * parameters / flops_per_second


def _copies(size_bytes: int) -> int:
    """Number of copies that a layer of this size is timed over."""
    return min(COLD_BYTES // size_bytes, MOST_COPIES)


@one_thread()
@torch.inference_mode()
def time_kernel(choice: Choice, shape: Shape, dtype: torch.dtype) -> tuple[float, float]:
    """Times of one decoded row and per row of a prompt, of the kernel of a random matrix under a choice [ms]."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    white = Statistics(
        second_moment=torch.eye(shape[1]), mean_absolute=torch.ones(shape[1]), importance=torch.ones(shape)
    )
    layer = runnable(choice, encode_matrix(choice, weight, "bfloat16", white.only(choice.needs)), shape, None, dtype)
    copies = [layer, *(deepcopy(layer) for _ in range(_copies(resident_bytes(layer))))]
    times = []
    for rows in (1, PROMPT_TOKENS):
        inputs = torch.randn(1, rows, shape[1], generator=generator).to(dtype)
        taken = []
        for turn in range(len(copies) + REPEATS):
            cold = copies[turn % len(copies)]
            started = time.perf_counter()
            cold(inputs)
            taken.append(time.perf_counter() - started)
        times.append(float(np.median(taken[2:])) * 1e3 / rows)
    return times[0], times[1]
