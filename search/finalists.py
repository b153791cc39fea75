"""Which plan wins: a few finalists on fresh texts, then the search's best against plans made without a search."""

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
from paredown.evaluators.latency import Build, Timing, time_models
from paredown.evaluators.quality import Quality
from paredown.search.checks import Calibrated, Checks, Seconds, Selected, Step, on_held_out, on_selection
from paredown.search.clock import Clock
from paredown.search.outcome import Comparison, Finding, Outcome, Survival
from paredown.search.pace import Measure, Measurement
from paredown.search.record import Record
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan

SEARCHED, UNIFORM = 4, 2
"""How many plans of the search, and how many uniform ones, are measured once more."""

UNSELECTED = "no time was left to measure all finalists on fresh texts: the search set chose among them, and luck flatters its choice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalists:
    """The most promising trials within the budget, those of the least loss first.

    Attributes:
        searched: Of the search, the solver's plans included.
        uniform: Uniform plans.
        solver: The solver's plan; None if none fits.
    """

    searched: Sequence[Record]
    uniform: Sequence[Record]
    solver: Record | None

    @classmethod
    def of(cls, outcome: Outcome) -> Finalists:
        """Those among all measured trials."""
        fitting = [record for record in outcome.records if outcome.allows(record)]
        fitting.sort(key=lambda record: (record.loss, record.size_bytes, record.number))
        return cls(
            searched=distinct([record for record in fitting if record.origin != "uniform"])[:SEARCHED],
            uniform=distinct([record for record in fitting if record.origin == "uniform"])[:UNIFORM],
            solver=next((record for record in fitting if record.origin == "solver"), None),
        )

    @property
    def records(self) -> list[Record]:
        """Each plan once."""
        return distinct([*self.searched, *self.uniform, *([self.solver] if self.solver else [])])

    @property
    def compared(self) -> list[Record]:
        """What the held-out set would compare if the search set chose."""
        return distinct([*self.searched[:1], *self.uniform[:1], *([self.solver] if self.solver else [])])


def measurements(outcome: Outcome, calibrated: Calibrated) -> list[Measurement]:
    """What choosing among the trials so far takes at most: the finalists on the selection set, then the guard."""
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
    """The outcome with its winner; as it was where no trial fits the budget.

    The selection set chooses, for each finalist, whether it is compressed in order; then the search's best and its rival, the best
    uniform plan within the budget. A plan that the trials found must beat the solver's own beyond the interval there: among many
    that were tried, some look better by luck. The held-out set compares the two, each rebuilt from several draws of the calibration
    texts: the rival wins unless the search's best is better beyond the interval.

    Under a limit, a measurement is begun only if it can end in time, and the selection set is read only if the held-out comparison can
    follow. Where the time is too short for all finalists, the search set chooses among them. Where it is too short for all draws of
    the held-out comparison, the plan is marked as unguarded; the draws that were compared count, and without any the rival must be
    beaten on the set that chose.

    Args:
        outcome: Of a search whose trials are done.
        measure: Measures a version of a plan on the ``selection`` and ``held-out`` sets.
        calibrated: Whether what a plan stores depends on calibration texts.
        step: Is told before each measurement.
        clock: The limit of the run.
        seconds: What measurements are expected to take.
    """
    finalists, checks = Finalists.of(outcome), Checks(measure, calibrated, step, clock, seconds)
    first = distinct([*finalists.compared, *finalists.records])  # those whose versions the guard needs
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
    """In words, what of the held-out comparison is missing; empty if nothing is."""
    if checks.draws == checks.wanted:
        return ""
    if checks.draws:
        return f"the time was enough for {checks.draws} of the {checks.wanted} draws of the calibration texts"
    return "no time was left for the held-out comparison with the best uniform plan"


def time_deployed(
    outcome: Outcome, build: Build, at_once: int, step: Step, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """The original, the winner and the best uniform plan as the target runs them, timed end to end.

    They are timed in turn where memory holds all of them, else one after the other. What cannot be built or timed has no times; the
    winner stands.

    Args:
        outcome: With its winner.
        build: Makes the deployed model of a plan.
        at_once: How many deployed models memory holds.
        step: Is told before each model is built.
        say: Is told in a sentence why there are no times.
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
            gc.collect()  # an error keeps the models alive that were built before it
        for name in plans if not found else ():
            time_these([name])
    except (MemoryError, EvaluationError) as error:
        say(f"the deployed models were not all timed ({str(error) or 'out of memory'}); the winner stands")
    return {name: timing.model_dump() for name, timing in found.items()}


def distinct(records: Sequence[Record]) -> list[Record]:
    """The records, the first of each plan."""
    return list({record.plan: record for record in reversed(records)}.values())[::-1]


def _survival(finalists: Finalists, selection: Mapping[int, Selected], seed: int) -> Survival | None:
    """Of the trial that lost the least on the search set; None where that is the solver's own, or the search set is one sequence."""
    best, solver = next(iter(finalists.searched), None), finalists.solver
    if best is None or solver is None or best.origin == "solver" or not {best.number, solver.number} <= set(selection):
        return None
    if len(best.sequences) < 2 or len(best.sequences) != len(solver.sequences):
        return None
    search = ratio(_by_sequence(best), _by_sequence(solver), seed=seed)
    fresh = ratio(selection[best.number].alone, selection[solver.number].alone, seed=seed)
    return Survival(number=best.number, search=_comparison(solver, search), fresh=_comparison(solver, fresh))


def _by_sequence(record: Record) -> Quality:
    """A trial's sums, each sequence as a document."""
    totals = np.array(record.sequences or (record.loss,))
    return Quality(metric="", totals=totals, tokens=np.ones_like(totals), perplexity=None)


def _compared(best: Record, other: Record, held_out: Mapping[int, Sequence[Quality]], seed: int) -> Comparison:
    return _comparison(other, ratio(held_out[best.number], held_out[other.number], seed=seed))


def _comparison(other: Record, found: Ratio) -> Comparison:
    return Comparison(number=other.number, mean=found.mean, low=found.low, high=found.high)


def _finding(qualities: Sequence[Quality]) -> Finding:
    """Of the first draw, which is what is written; the interval is over documents and draws."""
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
