"""Choice of the winner: finalists on fresh texts, then the search's best against the uniform and the solver's plan."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from paredown.evaluators.comparison import Ratio, interval, ratio
from paredown.evaluators.door import memory_faults
from paredown.evaluators.latency import Build
from paredown.evaluators.quality import Quality
from paredown.evaluators.timing import Timing, time_models
from paredown.search.finalists.checks import Calibrated, Checks, Seconds, Selected, Step, on_held_out, on_selection
from paredown.search.finalists.pace import Measure, Measurement
from paredown.search.outcome.outcome import Comparison, Finding, Outcome, Survival
from paredown.search.trial import Record
from paredown.search.trials.clock import Clock
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan

SEARCHED, UNIFORM = 4, 2
"""Most finalists among the searched plans and among the uniform plans."""

UNSELECTED = (
    "no time was left to measure all finalists on fresh texts; "
    "the search set chose among them, and its losses are optimistic"
)
"""Warning for an outcome whose winner was not chosen on the selection set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalists:
    """The best trials within the budget, least loss first.

    Attributes:
        searched: Trials of the search, including those of the solver's plans.
        uniform: Trials of uniform plans.
        solver: The best trial of a solver's plan; None if none fits.
    """

    searched: Sequence[Record]
    uniform: Sequence[Record]
    solver: Record | None

    @classmethod
    def of(cls, outcome: Outcome) -> Finalists:
        """Selects the finalists among all trials of an outcome."""
        fitting = [record for record in outcome.records if outcome.allows(record)]
        fitting.sort(key=lambda record: (record.loss, record.size_bytes, record.number))
        return cls(
            searched=distinct([record for record in fitting if record.origin != "uniform"])[:SEARCHED],
            uniform=distinct([record for record in fitting if record.origin == "uniform"])[:UNIFORM],
            solver=next((record for record in fitting if record.origin == "solver"), None),
        )

    @property
    def records(self) -> list[Record]:
        """All finalists, each plan once."""
        return distinct([*self.searched, *self.uniform, *([self.solver] if self.solver else [])])

    @property
    def compared(self) -> list[Record]:
        """The plans that the held-out set would compare if the search set chose among the finalists."""
        return distinct([*self.searched[:1], *self.uniform[:1], *([self.solver] if self.solver else [])])


def measurements(outcome: Outcome, calibrated: Calibrated) -> list[Measurement]:
    """The most measurements that choosing the winner can take: finalists on the selection set, then held-out."""
    finalists = Finalists.of(outcome)
    selection = [each for record in finalists.records for each in on_selection(record, calibrated)]
    return [*selection, *on_held_out(finalists.compared, calibrated)]


def decide(
    outcome: Outcome,
    measure: Measure,
    calibrated: Calibrated,
    step: Step,
    clock: Clock = Clock(),  # noqa: B008 - a frozen value
    seconds: Seconds = lambda measurements: 0.0,
) -> Outcome:
    """The outcome with its winner; without a winner if no trial fits the budget.

    The selection set decides whether each finalist is compressed in order. It then chooses the search's best plan and
    its rival, the best uniform plan within the budget. A plan found by the trials replaces the solver's plan only if
    the 95 % interval of their loss ratio lies below 1, since the best of many trials is partly luck (winner's curse).
    The held-out set compares the search's best with its rival, each rebuilt from several calibration draws. The rival
    wins unless the interval of the ratio lies below 1.

    Under a time limit, a measurement starts only if it is expected to end in time, and the selection set is read only
    if time is left for the held-out comparison. If time is too short for all finalists, the search set chooses among
    them. If it is too short for all draws of the held-out comparison, the plan is marked as unguarded. The draws that
    were measured count; without any, the rival must be beaten on the set that chose.

    Args:
        outcome: Outcome of a search whose trials are done.
        measure: Measures a version of a plan on the ``selection`` and ``held-out`` sets.
        calibrated: Whether the stored tensors of a plan depend on the calibration texts.
        step: Progress callback, called before each measurement.
        clock: Time limit of the run.
        seconds: Expected time of measurements [s].
    """
    finalists, checks = Finalists.of(outcome), Checks(measure, calibrated, step, clock, seconds)
    first = distinct([*finalists.compared, *finalists.records])  # first those that the held-out comparison needs
    selection = checks.selection(first, on_held_out(finalists.compared, calibrated))
    qualities = {number: each.quality for number, each in selection.items()}
    if not checks.is_selected:
        qualities = {record.number: _by_sequence(record) for record in finalists.records}

    def rank(record: Record) -> tuple[float, int, int]:
        return qualities[record.number].mean, record.size_bytes, record.number

    def beats(record: Record, other: Record) -> bool:
        return ratio(qualities[record.number], qualities[other.number], seed=outcome.seed).high < 1

    best = min((record for record in finalists.searched if record.number in qualities), key=rank, default=None)
    solver = finalists.solver if finalists.solver and finalists.solver.number in qualities else None
    if best and solver and best != solver and not beats(best, solver):
        best = solver
    rival = min((record for record in finalists.uniform if record.number in qualities), key=rank, default=None)
    compared = distinct([record for record in (best, rival, solver) if record is not None])
    refits = {number: each.refit for number, each in selection.items() if each.refit}
    held_out = checks.held_out(compared, refits)
    if checks.draws:
        best, rival, solver = (
            record if record and record.number in held_out else None for record in (best, rival, solver)
        )
    comparisons = {
        name: _compared(best, other, held_out, outcome.seed)
        for name, other in {"uniform": rival, "solver": solver}.items()
        if checks.draws and best and other and other != best
    }
    gains = best is not None and (
        rival is None or (comparisons["uniform"].high < 1 if comparisons else beats(best, rival))
    )
    winner = best if gains else rival or best
    return replace(
        outcome,
        selection={number: _finding([each.quality]) for number, each in selection.items()},
        unselected="" if checks.is_selected else UNSELECTED,
        refits=refits,
        survival=_survival(finalists, selection, outcome.seed),
        held_out={number: _finding(by_draw) for number, by_draw in held_out.items()} if checks.draws else {},
        unguarded=_unguarded(checks) if compared else "",
        winner=winner.number if winner else None,
        searched=best.number if best else None,
        uniform=rival.number if rival else None,
        comparisons=comparisons,
    )


def _unguarded(checks: Checks) -> str:
    """What is missing from the held-out comparison, in words; empty if it is complete."""
    if checks.draws == checks.wanted:
        return ""
    if checks.draws:
        return f"time allowed only {checks.draws} of the {checks.wanted} calibration draws of the held-out comparison"
    return "no time was left for the held-out comparison with the best uniform plan"


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
    records = distinct([outcome[number] for number in (outcome.winner, outcome.uniform) if number is not None])
    plans = {"original": Plan(), **{str(record.number): record.plan for record in records}}
    found: dict[str, Timing] = {}

    def time_these(names: Sequence[str]) -> None:
        models: dict[str, PreTrainedModel] = {}
        with memory_faults():
            for name in names:
                step("deployed models, timed", len(found) + len(models), len(plans))
                models[name] = build(plans[name])
            found.update(time_models(models, outcome.metric == "kl"))

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


def distinct(records: Sequence[Record]) -> list[Record]:
    """The trials without duplicate plans; the first of each plan is kept."""
    return list({record.plan: record for record in reversed(records)}.values())[::-1]


def _survival(finalists: Finalists, selection: Mapping[int, Selected], seed: int) -> Survival | None:
    """Gain of the best trial over the solver's plan, on the search set and on the selection set.

    None if the best trial is a solver's plan, if either was not measured on the selection set, or if the two cannot be
    paired on at least two sequences of the search set.
    """
    best, solver = next(iter(finalists.searched), None), finalists.solver
    if best is None or solver is None or best.origin == "solver" or not {best.number, solver.number} <= set(selection):
        return None
    if len(best.sequences) < 2 or len(best.sequences) != len(solver.sequences):
        return None
    search = ratio(_by_sequence(best), _by_sequence(solver), seed=seed)
    fresh = ratio(selection[best.number].alone, selection[solver.number].alone, seed=seed)
    return Survival(number=best.number, search=_comparison(solver, search), fresh=_comparison(solver, fresh))


def _by_sequence(record: Record) -> Quality:
    """A trial's losses on the search set as a `Quality`, with each sequence as a document."""
    totals = np.array(record.sequences or (record.loss,))
    return Quality(metric="", totals=totals, tokens=np.ones_like(totals), perplexity=None)


def _compared(best: Record, other: Record, held_out: Mapping[int, Sequence[Quality]], seed: int) -> Comparison:
    return _comparison(other, ratio(held_out[best.number], held_out[other.number], seed=seed))


def _comparison(other: Record, found: Ratio) -> Comparison:
    return Comparison(number=other.number, mean=found.mean, low=found.low, high=found.high)


def _finding(qualities: Sequence[Quality]) -> Finding:
    """Loss under the first draw, whose plan is written, with an interval over documents and calibration draws."""
    low, high = interval(qualities)
    first = qualities[0]
    return Finding(
        mean=first.mean,
        low=min(low, first.mean),
        high=max(high, first.mean),
        documents=len(first.totals),
        perplexity=first.perplexity,
        draws=len(qualities),
    )
