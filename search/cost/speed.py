"""Speed of this machine at the work of a search, timed on small pieces in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from paredown.compressors.bank.bank import one_thread
from paredown.search.cost.writes import input_widths
from paredown.space.choice import KEEP, Choice, MatrixChoice
from paredown.space.site import Inventory, Site
from paredown.space.statistics import Statistics

PASSES = 2.5
"""Cost of attention, norms and activations, in passes over the inputs and outputs of all matrices."""

COMPARED_PASSES = 3
"""Cost of comparing two distributions, in passes that each take as long as a log-softmax."""

PIECE = 128
"""Rows and columns of the matrix that a method is timed on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Speed of a model on this machine.

    Attributes:
        flops_per_second: Rate of matrix products of the model's shapes.
        forward: Time of a token through the blocks [s].
        compared: Time of a token through the model, including the comparison with the original's distribution [s].
        deployed_flops_per_second: Rate of matrix products in the dtype that the deployed model computes in.
        deployed: Time of a token through the deployed model on one thread [s].
    """

    flops_per_second: float
    forward: float
    compared: float
    deployed_flops_per_second: float
    deployed: float

    @classmethod
    @one_thread()
    def of(cls, inventory: Inventory, dtype: torch.dtype = torch.float32) -> Speed:
        """Speed from timing matrix products, in ``dtype`` for deployed models, and a comparison."""
        embedding = next((site.members[0] for site in inventory.leaves if site.kind == "embedding"), None)
        linear = [member for site in inventory.leaves if site.kind == "linear" for member in site.members]
        largest = max(linear, key=lambda member: member.parameters).shape
        rate, deployed_rate = _flops(largest), _flops(largest, dtype)
        inside = [
            m for site in inventory.leaves if site.block is not None and site.kind == "linear" for m in site.members
        ]
        products, elements = 2 * sum(m.parameters for m in inside) / rate, PASSES * sum(sum(m.shape) for m in inside)
        forward = products + elements * _comparison(1024) / 1024 / COMPARED_PASSES
        deployed = forward + products * (rate / deployed_rate - 1)
        known = {"flops_per_second": rate, "forward": forward, "deployed_flops_per_second": deployed_rate}
        if not inventory.causal or embedding is None:
            return cls(**known, compared=forward, deployed=deployed)
        vocabulary, hidden = embedding.shape  # both distributions are computed from final hidden states
        head = 2 * vocabulary * hidden
        compared = forward + 2 * head / rate + _comparison(vocabulary)
        return cls(**known, compared=compared, deployed=deployed + head / deployed_rate)


@one_thread()
def bank_seconds(pairs: Mapping[tuple[str, Choice], Site], flops_per_second: float) -> float:
    """Time to compress every site under every choice in one thread, from timed pieces of each kind of choice [s].

    A method's time is proportional to the number of weights. For methods that read second moments, the error feedback
    and the factorisation of each matrix of moments are added by their number of operations.
    """
    weights: dict[tuple[str, ...], float] = {}
    examples: dict[tuple[str, ...], Choice] = {}
    seconds, factored = 0.0, set()
    for (_, choice), site in pairs.items():
        key = tuple(f"{step.method} {getattr(step, 'algorithm', '')}" for step in choice.steps)
        examples.setdefault(key, choice)
        for member in site.members:
            weights[key] = weights.get(key, 0.0) + member.parameters
            if "second_moment" in choice.needs:
                width = member.shape[1]
                seconds += 2 * member.parameters * max(0, width - PIECE) / flops_per_second
                factored.add((member.module, width))
    seconds += sum(2 * width**3 / flops_per_second for _, width in factored)
    piece = torch.randn(PIECE, PIECE)
    known = Statistics(
        second_moment=piece.T @ piece / PIECE, mean_absolute=piece.abs().mean(0), importance=piece.square()
    )
    for key, choice in examples.items():
        step = choice.then if choice.then and "linear" not in choice.kinds else choice
        if isinstance(step, MatrixChoice) and step != KEEP and step.fault((PIECE, PIECE)) is None:
            each = _timed(lambda step=step: step.encode(piece, known.only(step.needs)), 2)  # type: ignore[misc]
            seconds += each * weights[key] / piece.numel()
    return seconds


def ordered_flops(inventory: Inventory, tokens: int) -> float:
    """Operations to compress a plan in order beside its forward pass and compression: moments, factors, corrections."""
    linear = [member for site in inventory.leaves if site.kind == "linear" for member in site.members]
    return sum(4.0 * tokens * width**2 + 2.0 * width**3 for width in input_widths(inventory).values()) + sum(
        10.0 * member.parameters * member.shape[1] for member in linear
    )


def _timed(call: Callable[[], object], calls: int = 20) -> float:
    """CPU time of the fastest call on one thread [s]; time that other processes held the core does not count."""
    found = []
    for _ in range(calls):
        started = time.thread_time()
        call()
        found.append(time.thread_time() - started)
    return min(found)


def _flops(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second in products of a batch with a matrix of this shape, cut to 2048 a side."""
    rows, columns = min(shape[0], 2048), min(shape[1], 2048)
    inputs, weight = torch.randn(256, columns).to(dtype), torch.randn(rows, columns).to(dtype)
    return 2 * 256 * rows * columns / _timed(lambda: inputs @ weight.T)


def _comparison(vocabulary: int) -> float:
    """Time per token to compare two distributions [s]."""
    logits = torch.randn(64, vocabulary)
    return COMPARED_PASSES * _timed(lambda: (logits - logits.logsumexp(-1, keepdim=True)).exp()) / 64
