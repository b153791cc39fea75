"""End-to-end times of the winner and its rival, run as the target runs them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from paredown.evaluators.door import memory_faults
from paredown.evaluators.latency import Build
from paredown.evaluators.timing import Running, Timing, time_models
from paredown.search.finalists.checks import Step
from paredown.search.finalists.finalists import distinct
from paredown.search.outcome.outcome import Outcome
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan


def time_deployed(
    outcome: Outcome, build: Build, at_once: int, step: Step, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """End-to-end times of the original, the winner and the best uniform plan, run as the target runs them.

    If memory holds all models, their timed runs alternate; otherwise they are timed one model after the other. A model
    that cannot be built or timed has no times and does not change the winner.

    Args:
        outcome: Outcome with its winner.
        build: Builds the deployed model of a plan.
        at_once: Number of deployed models that memory holds.
        step: Progress callback, called before each model is built.
        say: Called with a message if models could not be timed.
    """
    trials = distinct(
        [outcome.trials[number] for number in (outcome.decision.winner, outcome.decision.uniform) if number is not None]
    )
    plans = {"original": Plan(), **{str(trial.number): trial.plan for trial in trials}}
    found: dict[str, Timing] = {}

    def time_these(names: Sequence[str]) -> None:
        models: dict[str, Running] = {}
        with memory_faults():
            for name in names:
                step("deployed models, timed", len(found) + len(models), len(plans))
                models[name] = build(plans[name])
            found.update(time_models(models))

    try:
        if at_once < 1:
            raise MemoryError("the study's memory does not hold one of them")
        if at_once >= len(plans):
            with suppress(MemoryError):
                time_these(list(plans))
            gc.collect()  # frees the models that the error's traceback kept alive
        for name in plans if not found else ():
            time_these([name])
    except (MemoryError, EvaluationError) as error:
        say(f"the deployed models were not all timed ({str(error) or 'out of memory'}); the winner stands")
    return {name: timing.model_dump() for name, timing in found.items()}
