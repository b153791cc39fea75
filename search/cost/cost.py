"""Estimated cost of a search: time, disk, memory and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from paredown.compressors.bank.bank import CACHE_BYTES
from paredown.compressors.bank.fill import cores
from paredown.compressors.calibration.statistics_folder import IN_MEMORY
from paredown.compressors.original.checkpoint import config_of
from paredown.compressors.original.memory_limit import memory_bytes
from paredown.evaluators.latency import kernels_timed
from paredown.evaluators.quality import BATCH_TOKENS
from paredown.evaluators.timing import expected_kernel_seconds, expected_seconds
from paredown.search.cost.speed import Speed, bank_seconds, ordered_flops
from paredown.search.cost.writes import COMPARED, finalists_of, input_widths, pairs_of, writes_of
from paredown.search.finalists.checks import DRAWS
from paredown.search.finalists.finalists import SEARCHED, UNIFORM
from paredown.search.sensitivity.sensitivity import estimated_tokens
from paredown.search.trials.uniform import UniformPlan, uniform_plans
from paredown.search.workbench.deployed import deployed_dtype
from paredown.space.choice import KEEP
from paredown.space.space import Space
from paredown.space.study_file import StudyFile, Tokens

FASTEST, SLOWEST = 0.75, 4.0 / 3.0
"""Lower and upper bound of a time, as factors of its estimate; an otherwise busy machine takes longer."""

START_SECONDS, TRIAL_SECONDS = 12.0, 0.03
"""Fixed time to load libraries and texts and to write reports, and to log one trial [s]."""

LIBRARIES_BYTES, WORKER_BYTES = 500 << 20, 250 << 20
"""Memory of the searching process, and of one that fills the bank, before any of the model is loaded [bytes]."""

GAIN = 0.7
"""Exponent of the parallel speed-up: n cores run a forward pass ``n ** GAIN`` times as fast as one."""

KERNEL_SECONDS, PAIR_SECONDS = 0.05, 0.003
"""Overhead of timing one kernel, and of reading one record to compare its weights with the original's [s]."""

DECODED_PASSES = 4
"""Time of one decoded token of a deployed model, in prompt tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Estimated cost of a search. Each pair of times is a lower and an upper bound.

    Attributes:
        record_bytes: Size of the bank records of all options, uniform plans included; exact.
        bank_bytes: Final size of the bank: records, statistics of all calibration draws, finalists compressed again.
        disk_bytes: Peak disk use: the bank, the original's inputs while plans are compressed in order, trial database
            and reports.
        memory_bytes: Peak memory of all processes together; approximate.
        tokens_per_trial: Tokens that one trial reads.
        tokens: Tokens that all steps read; without those of the trials if their number is not limited.
        trials: Most trials; None if only time limits them.
        flops_per_second: Speed of matrix products of this model's shapes, timed on one thread [FLOP/s].
        trial_seconds: Time of one trial [s].
        around_seconds: Time of everything but the trials [s].
        seconds: Time of everything [s]; None if only time limits the trials.
        steps: Expected time of each step by its name [s].
    """

    record_bytes: int
    bank_bytes: int
    disk_bytes: int
    memory_bytes: int
    tokens_per_trial: int
    tokens: int
    trials: int | None
    flops_per_second: float
    trial_seconds: tuple[float, float]
    around_seconds: tuple[float, float]
    seconds: tuple[float, float] | None
    steps: dict[str, float]


def memory(study_file: StudyFile, space: Space, workers: int = 1) -> int:
    """Approximate peak memory of a search [bytes]: the searching process and those that fill the bank."""
    return _searching(study_file, space) + (workers * _filling(space) if workers > 1 else 0)


def _filling(space: Space) -> int:
    """Peak memory of a process that fills the bank [bytes]: statistics with their factors, dense copies of a matrix.

    Weights are memory-mapped and do not count.
    """
    members = [member for site in space.inventory.leaves if site.kind == "linear" for member in site.members]
    square = max(member.shape[1] for member in members) ** 2
    return WORKER_BYTES + IN_MEMORY * 4 * 4 * square + 6 * 4 * max(member.parameters for member in members)


def _searching(study_file: StudyFile, space: Space) -> int:
    """Approximate peak memory of the searching process [bytes].

    It holds the weights in float32, hidden states of the original, logits, and the libraries. A streamed model counts
    two copies of the weights outside the blocks (one for the model, one for the original's predictions) and two blocks.
    Statistics are held with their factors. Compressing a matrix in order takes several float64 matrices of its size.
    """
    inventory, tokens = space.inventory, study_file.tokens
    members = [member for site in inventory.leaves for member in site.members]
    embedding = next((site.members[0] for site in inventory.leaves if site.kind == "embedding"), None)
    vocabulary, hidden = embedding.shape if embedding else (1, max(member.shape[1] for member in members))
    states = 4 * (tokens.search + tokens.selection + tokens.held_out) * hidden
    running = LIBRARIES_BYTES + states + 16 * BATCH_TOKENS * vocabulary
    if 4 * inventory.parameters <= memory_bytes(study_file.memory):
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


def estimate(study_file: StudyFile, folder: Path, space: Space) -> Cost:
    """The estimated cost of a study. Runs small timed computations, which take a second or two.

    Args:
        study_file: The study.
        folder: Folder of its model.
        space: Its space on that model.
    """
    inventory, tokens, budget = space.inventory, study_file.tokens, space.inventory.budget_bytes(study_file.budget)
    writes, pairs = writes_of(study_file, space), pairs_of(space)
    dtype, timed = deployed_dtype(config_of(folder), space), study_file.latency == "measure"
    speed = Speed.of(inventory, dtype)
    filling = bank_seconds(pairs, speed.flops_per_second)
    calibrated = writes.rebuilt > 0
    uniform = uniform_plans(space, budget)
    finalists = finalists_of(study_file, uniform, budget)
    together = cores() ** GAIN
    trial = tokens.search * speed.compared / together + TRIAL_SECONDS
    sensitive = estimated_tokens(study_file.sensitivity, space, tokens.search)
    squares = sum(width**2 for width in input_widths(inventory).values())
    collected = tokens.calibration * (speed.forward + 2 * squares / speed.flops_per_second)
    checks = tokens_of_checks(tokens, finalists, COMPARED, calibrated=calibrated)
    again = (finalists + (DRAWS - 1) * COMPARED) * filling / max(1.0, _choices(space)) if calibrated else 0.0
    if calibrated:
        again += (
            (finalists + (DRAWS - 1) * COMPARED) * ordered_flops(inventory, tokens.calibration) / speed.flops_per_second
        )
        again += (DRAWS - 1) * collected + DRAWS * tokens.calibration * speed.forward  # the original's inputs
    around = {
        "model and texts": START_SECONDS + collected / together,
        "bank": filling / cores(),
        "sensitivity": (2 * tokens.search + sensitive) * speed.compared / together + _changes_seconds(space, speed),
        "latency": _table_seconds(space, speed, dtype, uniform) if timed else 0.0,
        "finalists": (checks * speed.compared + again) / together + (_timed_seconds(3, speed) if timed else 0.0),
    }
    trials = {} if study_file.trials is None else {"trials": study_file.trials * trial}
    return Cost(
        record_bytes=writes.records,
        bank_bytes=writes.bank,
        disk_bytes=writes.peak,
        memory_bytes=memory(study_file, space, cores()),
        tokens_per_trial=tokens.search,
        tokens=tokens_of_search(study_file, space, study_file.trials or 0),
        trials=study_file.trials,
        flops_per_second=speed.flops_per_second,
        trial_seconds=_range(trial),
        around_seconds=_range(sum(around.values())),
        seconds=_range(sum((around | trials).values())) if trials else None,
        steps=around | trials,
    )


def tokens_of_search(study_file: StudyFile, space: Space, trials: int) -> int:
    """Tokens that a search with this many trials reads in forward passes; the original reads the search set once."""
    return tokens_around(study_file, space) + study_file.tokens.search * (1 + trials)


def tokens_around(study_file: StudyFile, space: Space) -> int:
    """Tokens that the steps before and after the trials read."""
    calibrated = any(choice.needs for choices in space.options.values() for choice in choices)
    tokens = study_file.tokens
    before = tokens.calibration + round(estimated_tokens(study_file.sensitivity, space, tokens.search))
    return before + tokens_of_checks(tokens, SEARCHED + UNIFORM, COMPARED, calibrated=calibrated)


def tokens_of_checks(tokens: Tokens, finalists: int, compared: int, *, calibrated: bool) -> int:
    """Tokens read to choose the winner.

    The original reads each set once. A calibrated plan is measured in two versions on the selection set, and from
    several calibration draws on the held-out set; statistics of one draw already exist.

    Args:
        tokens: Sizes of the sets [tokens].
        finalists: Number of plans on the selection set.
        compared: Number of plans on the held-out set.
        calibrated: Whether the plans depend on calibration texts.
    """
    versions, draws = (2, DRAWS) if calibrated else (1, 1)
    read = (1 + versions * finalists) * tokens.selection + (1 + draws * compared) * tokens.held_out
    again = (draws - 1 + finalists + (draws - 1) * compared) * tokens.calibration if calibrated else 0
    return read + again


def _range(seconds: float) -> tuple[float, float]:
    return seconds * FASTEST, seconds * SLOWEST


def _choices(space: Space) -> float:
    """Mean number of choices besides ``keep``, over the leaves that have any."""
    counts = [sum(choice != KEEP for choice in space.options[site.name]) for site in space.inventory.leaves]
    return sum(counts) / max(1, sum(map(bool, counts)))


def _changes_seconds(space: Space, speed: Speed) -> float:
    """Time to read the weights of every linear choice and compute their output errors [s]."""
    pairs = [(site, choice) for site in space.inventory.leaves for choice in space.options[site.name] if choice != KEEP]
    products = sum(
        2 * member.parameters * member.shape[1] for site, _ in pairs if site.kind == "linear" for member in site.members
    )
    return PAIR_SECONDS * len(pairs) + products / speed.flops_per_second


def _table_seconds(space: Space, speed: Speed, dtype: torch.dtype, uniform: Sequence[UniformPlan]) -> float:
    """Time to measure every kernel, and the models that calibrate the latency table [s]."""
    seconds = 0.0
    for _, shape in kernels_timed(space, dtype, [plan.plan for plan in uniform]).values():
        seconds += KERNEL_SECONDS + expected_kernel_seconds(shape, dtype, speed.deployed_flops_per_second)
    return seconds + _timed_seconds(4 if space.max_drops else 3, speed)


def _timed_seconds(models: int, speed: Speed) -> float:
    """Time to measure models end to end [s]."""
    prompt_ms = 1000 * speed.deployed
    return expected_seconds(models, prompt_ms, DECODED_PASSES * prompt_ms)
