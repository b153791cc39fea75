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
from paredown.search.outcome import Comparison, Finding, Outcome, Refit, Survival
from paredown.search.rebuild import Version
from paredown.search.record import Record
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan

SEARCHED, UNIFORM = 4, 2
"""How many plans of the search, and how many uniform ones, are measured once more."""

DRAWS = 3
"""From how many draws of the calibration texts the plans are rebuilt that the held-out set compares."""

Measure = Callable[[Plan, str, Version], Quality]
"""The quality of a version of a plan on a set, by name."""

Step = Callable[[str, int, int], None]
"""Who is told of a step: its name, how much is done, of how much."""

IN_ORDER = Version(in_order=True)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """A finalist on the selection set, in the version that is better there.

    Attributes:
        quality: Of that version.
        alone: Its matrices compressed each for itself, as the trials had it.
        refit: What compressing in order brought; None for plans that no text calibrates.
    """

    quality: Quality
    alone: Quality
    refit: Refit | None


def decide(outcome: Outcome, measure: Measure, calibrated: Callable[[Plan], bool], step: Step) -> Outcome:
    """The outcome with its winner; as it was where no trial fits the budget.

    The selection set chooses, for each finalist, whether it is compressed in order; then the search's best and its rival, the best
    uniform plan within the budget. A plan that the trials found must beat the solver's own beyond the interval there: among many
    that were tried, some look better by luck. The held-out set compares the two, each rebuilt from several draws of the calibration
    texts: the rival wins unless the search's best is better beyond the interval.

    Args:
        outcome: Of a search whose trials are done.
        measure: Measures a version of a plan on the ``selection`` and ``held-out`` sets.
        calibrated: Whether what a plan stores depends on calibration texts.
        step: Is told before each measurement.
    """
    finalists = Finalists.of(outcome)
    selection = _selected(finalists.records, measure, calibrated, step)

    def rank(record: Record) -> tuple[float, int, int]:
        return selection[record.number].quality.mean, record.size_bytes, record.number

    best = min((record for record in finalists.searched if record.number in selection), key=rank, default=None)
    solver = finalists.solver if finalists.solver and finalists.solver.number in selection else None
    if best and solver and best != solver:
        found = ratio(selection[best.number].quality, selection[solver.number].quality, seed=outcome.seed)
        best = best if found.high < 1 else solver
    rival = min((record for record in finalists.uniform if record.number in selection), key=rank, default=None)
    compared = distinct([record for record in (best, rival, solver) if record is not None])
    refits = {number: each.refit for number, each in selection.items() if each.refit}
    held_out = _held_out(compared, refits, measure, calibrated, step)
    best, rival, solver = (record if record and record.number in held_out else None for record in (best, rival, solver))
    comparisons = {
        name: _compared(best, other, held_out, outcome.seed)
        for name, other in {"uniform": rival, "solver": solver}.items()
        if best and other and other != best
    }
    guarded = best is None or ("uniform" in comparisons and comparisons["uniform"].high >= 1)
    winner = rival if guarded and rival else best
    return replace(
        outcome,
        selection={number: _finding([each.quality]) for number, each in selection.items()},
        refits=refits,
        survival=_survival(finalists, selection, outcome.seed),
        held_out={number: _finding(qualities) for number, qualities in held_out.items()},
        winner=winner.number if winner else None,
        searched=best.number if best else None,
        uniform=rival.number if rival else None,
        comparisons=comparisons,
    )


def time_deployed(outcome: Outcome, build: Build, at_once: int, step: Step, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
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


def _selected(records: Sequence[Record], measure: Measure, calibrated: Callable[[Plan], bool], step: Step) -> dict[int, Selected]:
    """Each finalist by number of the trial; what is not finite on fresh texts cannot win."""
    found = {}
    for done, record in enumerate(records):
        step("finalists on fresh texts", done, len(records))
        with suppress(EvaluationError):
            alone = measure(record.plan, "selection", Version())
            found[record.number] = Selected(quality=alone, alone=alone, refit=None)
            if calibrated(record.plan):
                ordered = measure(record.plan, "selection", IN_ORDER)
                refit = Refit(alone=alone.mean, in_order=ordered.mean)
                found[record.number] = Selected(quality=ordered if refit.gains else alone, alone=alone, refit=refit)
    return found


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
    totals = np.array(record.sequences)
    return Quality(metric="", totals=totals, tokens=np.ones_like(totals), perplexity=None)


def _held_out(
    records: Sequence[Record], refits: Mapping[int, Refit], measure: Measure, calibrated: Callable[[Plan], bool], step: Step
) -> dict[int, list[Quality]]:
    """The quality of each for every draw of the calibration texts; as many for each, so that draws are paired."""
    draws = DRAWS if any(calibrated(record.plan) for record in records) else 1
    found: dict[int, list[Quality]] = {record.number: [] for record in records}
    for draw in range(draws):  # the inputs of one draw serve all its plans
        for done, record in enumerate(records):
            step("held-out texts", draw * len(records) + done, draws * len(records))
            refit = refits.get(record.number)
            version = Version(in_order=refit is not None and refit.gains, draw=draw if calibrated(record.plan) else 0)
            with suppress(EvaluationError):
                found[record.number].append(measure(record.plan, "held-out", version))
    return {number: qualities for number, qualities in found.items() if len(qualities) == draws}


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
