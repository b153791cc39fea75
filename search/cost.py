"""What a search will cost, said before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from paredown.compressors.bank import CACHE_BYTES
from paredown.compressors.memory import memory_bytes
from paredown.evaluators.quality import BATCH_TOKENS
from paredown.search.checks import DRAWS
from paredown.search.finalists import SEARCHED, UNIFORM
from paredown.search.sensitivity import estimated_tokens
from paredown.search.uniform import uniform_plans
from paredown.space.choice import KEEP, Choice
from paredown.space.layouts import site_layout
from paredown.space.space import Space
from paredown.space.statistics import Statistics
from paredown.space.study_file import StudyFile, Tokens
from paredown.space.tensors import total_bytes

FASTEST, SLOWEST = 1.2, 4.0
"""What attention, norms and a busy machine add to the matrix products that were timed, at best and at worst."""

START_SECONDS, TRIAL_SECONDS = 4.0, 0.03
"""What a search spends beside its forward passes: on libraries and texts, and on the books of a trial."""

FINALISTS, COMPARED = SEARCHED + UNIFORM + 1, 3
LIBRARIES_BYTES = 500 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a search needs.

    Attributes:
        bank_bytes: Of all options of all sites and of the uniform plans, exactly, file headers not counted.
        memory_bytes: At most, roughly: as `memory` says.
        tokens_per_trial: That one trial reads.
        tokens: That all steps read together; without a count of trials, those of the steps around them.
        trials: How many are asked for; None where a clock decides.
        flops_per_second: Of matrix products of this model's shape, timed just now.
        trial_seconds: A trial, from and to.
        around_seconds: Bank, sensitivity and finalists, from and to.
        seconds: Everything, from and to; None where a clock decides.
    """

    bank_bytes: int
    memory_bytes: int
    tokens_per_trial: int
    tokens: int
    trials: int | None
    flops_per_second: float
    trial_seconds: tuple[float, float]
    around_seconds: tuple[float, float]
    seconds: tuple[float, float] | None


def bank_bytes(space: Space, budget_bytes: int) -> int:
    """Tensor bytes of every site under every option that is not kept, and under what uniform plans take beside those."""
    options = {(site.name, choice): site for site in space.inventory.sites for choice in space.options[site.name]}
    for uniform in uniform_plans(space, budget_bytes):
        options |= {(site.name, choice): site for site, choice in uniform.plan.decided(space.inventory)}
    return sum(total_bytes(site_layout(site, choice)) for (_, choice), site in options.items() if choice != KEEP and site.kind != "block")


def memory(question: StudyFile, space: Space) -> int:
    """Bytes that a search takes at most, roughly: weights in float32, states of the original, logits, the libraries.

    Of a streamed model the weights are what lies outside the blocks, for the model and for the original's predictions, and twice a
    block; each file of statistics has its factors beside it, and a matrix compressed in order takes several of its size in float64.
    """
    inventory, tokens = space.inventory, question.tokens
    members = [member for site in inventory.leaves for member in site.members]
    embedding = next((site.members[0] for site in inventory.leaves if site.kind == "embedding"), None)
    vocabulary, hidden = embedding.shape if embedding else (1, max(member.shape[1] for member in members))
    states = 4 * (tokens.search + tokens.selection + tokens.held_out) * hidden
    running = LIBRARIES_BYTES + states + 16 * BATCH_TOKENS * vocabulary
    if 4 * inventory.parameters <= memory_bytes(question.memory):
        dense = sum(4 * m.parameters * len(space.options[s.name]) for s in inventory.leaves for m in s.members)
        return running + 8 * inventory.parameters + min(CACHE_BYTES, dense)
    weights: dict[int | None, int] = {}
    for site in inventory.leaves:
        weights[site.block] = weights.get(site.block, 0) + sum(member.parameters for member in site.members)
    outside = weights.pop(None, 0)
    inside = [member.shape for site in inventory.leaves if site.block is not None for member in site.members]
    widest = max(max(shape) for shape in inside)
    square = max(inputs for _, inputs in inside) ** 2
    return running + 8 * outside + 8 * max(weights.values()) + 40 * square + 16 * tokens.calibration * widest


def estimate(question: StudyFile, space: Space) -> Cost:
    """The cost of a study; times a few small matrix products, under a second."""
    inventory, tokens = space.inventory, question.tokens
    embedding = next((site.members[0] for site in inventory.leaves if site.kind == "embedding"), None)
    vocabulary, hidden = embedding.shape if embedding else (1, max(m.shape[1] for s in inventory.leaves for m in s.members))
    linear = [member for site in inventory.leaves if site.kind == "linear" for member in site.members]
    tied = inventory.causal and embedding is not None and bool(embedding.tied)
    weights = sum(member.parameters for member in linear) + (vocabulary * hidden if tied else 0)
    largest = max(linear, key=lambda member: member.parameters).shape
    rate = _flops(largest)
    per_token = 2 * weights / rate
    if inventory.causal:  # the original's logits are made again, and both distributions compared
        per_token += 2 * vocabulary * hidden / rate + _comparison(vocabulary)
    around = tokens_around(question, space) * per_token + _bank_seconds(space) + START_SECONDS
    trial = tokens.search * per_token + TRIAL_SECONDS
    trials = question.trials
    total = None if trials is None else around + trials * trial
    return Cost(
        bank_bytes=bank_bytes(space, inventory.budget_bytes(question.budget)),
        memory_bytes=memory(question, space),
        tokens_per_trial=tokens.search,
        tokens=tokens_of_search(question, space, trials or 0),
        trials=trials,
        flops_per_second=rate,
        trial_seconds=_range(trial),
        around_seconds=_range(around),
        seconds=None if total is None else _range(total),
    )


def tokens_of_search(question: StudyFile, space: Space, trials: int) -> int:
    """What a search reads in forward passes; so many trials, and the original once."""
    return tokens_around(question, space) + question.tokens.search * (1 + trials)


def tokens_around(question: StudyFile, space: Space) -> int:
    """What the steps before and after the trials read."""
    calibrated = any(choice.needs for choices in space.options.values() for choice in choices)
    before = question.tokens.calibration + round(estimated_tokens(question.sensitivity, space, question.tokens.search))
    return before + tokens_of_checks(question.tokens, FINALISTS, COMPARED, calibrated=calibrated)


def tokens_of_checks(tokens: Tokens, finalists: int, compared: int, *, calibrated: bool) -> int:
    """What choosing the winner reads: each set once by the original; calibrated plans in two versions, and from several draws of the
    calibration texts, of which one is there.

    Args:
        tokens: Of the sets.
        finalists: Plans on the selection set.
        compared: Plans on the held-out set.
        calibrated: Whether calibration texts decide on them.
    """
    versions, draws = (2, DRAWS) if calibrated else (1, 1)
    read = (1 + versions * finalists) * tokens.selection + (1 + draws * compared) * tokens.held_out
    again = (draws - 1 + finalists + (draws - 1) * compared) * tokens.calibration if calibrated else 0
    return read + again


def _range(seconds: float) -> tuple[float, float]:
    return seconds * FASTEST, seconds * SLOWEST


def _timed(call: Callable[[], object], least_seconds: float = 0.03) -> float:
    """Seconds of one call: the best of three groups, after one that is not counted."""
    call()
    best = float("inf")
    for _ in range(3):
        calls, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < least_seconds:
            call()
            calls += 1
        best = min(best, spent / calls)
    return best


def _flops(shape: tuple[int, int]) -> float:
    """Floating-point operations a second in products of a batch with a matrix of this shape, cut to 2048 a side."""
    rows, columns = min(shape[0], 2048), min(shape[1], 2048)
    inputs, weight = torch.randn(256, columns), torch.randn(rows, columns)
    return 2 * 256 * rows * columns / _timed(lambda: inputs @ weight.T)


def _comparison(vocabulary: int) -> float:
    """Seconds a token of comparing two distributions."""
    logits = torch.randn(64, vocabulary)
    return 3 * _timed(lambda: (logits - logits.logsumexp(-1, keepdim=True)).exp()) / 64


def _bank_seconds(space: Space) -> float:
    """Seconds to compress every option, from a piece of each kind of choice that is timed."""
    weights: dict[tuple[str, ...], float] = {}
    examples: dict[tuple[str, ...], Choice] = {}
    for site in space.inventory.leaves:
        for choice in space.options[site.name]:
            if choice != KEEP:
                key = tuple(f"{step.method} {getattr(step, 'algorithm', '')}" for step in choice.steps)
                weights[key] = weights.get(key, 0.0) + sum(member.parameters for member in site.members)
                examples.setdefault(key, choice)
    piece = torch.randn(128, 128)
    known = Statistics(second_moment=piece.T @ piece / 128, mean_absolute=piece.abs().mean(0), importance=piece.square())
    seconds = 0.0
    for key, choice in examples.items():
        if choice.fault((128, 128)) is None:
            started = time.perf_counter()
            choice.encode(piece, known.only(choice.needs))
            seconds += (time.perf_counter() - started) * weights[key] / piece.numel()
    return seconds
