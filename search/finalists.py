"""Which plan wins: a few finalists on fresh texts, then the search's best against plans made without a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from paredown.evaluators.comparison import interval, ratio
from paredown.evaluators.latency import Build, time_models
from paredown.evaluators.quality import Quality
from paredown.search.outcome import Comparison, Finding, Outcome
from paredown.search.record import Record
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan

SEARCHED, UNIFORM = 6, 3
"""How many plans of the search, and how many uniform ones, are measured once more."""

Measure = Callable[[Plan, str], Quality]
"""The quality of a plan on a set, by name."""

Step = Callable[[str, int, int], None]
"""Who is told of a step: its name, how much is done, of how much."""


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
        fitting = [record for record in outcome.records if record.size_bytes <= outcome.budget_bytes]
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


def decide(outcome: Outcome, measure: Measure, step: Step) -> Outcome:
    """The outcome with its winner; as it was where no trial fits the budget.

    The selection set chooses the search's best and its rival, the best uniform plan within the budget. A plan that the trials found
    must beat the solver's own beyond the interval there: among many that were tried, some look better by luck. The held-out set
    compares the two: the rival wins unless the search's best is better beyond the interval.

    Args:
        outcome: Of a search whose trials are done.
        measure: Measures a plan on the ``selection`` and ``held-out`` sets.
        step: Is told before each measurement.
    """
    finalists = Finalists.of(outcome)
    selection = _measured(finalists.records, "selection", "finalists on fresh texts", measure, step)

    def rank(record: Record) -> tuple[float, int, int]:
        return selection[record.number].mean, record.size_bytes, record.number

    best = min((record for record in finalists.searched if record.number in selection), key=rank, default=None)
    solver = finalists.solver if finalists.solver and finalists.solver.number in selection else None
    if best and solver and best != solver and ratio(selection[best.number], selection[solver.number], seed=outcome.seed).high >= 1:
        best = solver
    uniform = [record for record in finalists.uniform if record.number in selection]
    rival = min(uniform, key=rank, default=None)
    compared = distinct([record for record in (best, rival, solver) if record is not None])
    held_out = _measured(compared, "held-out", "held-out texts", measure, step)
    best, rival, solver = (record if record and record.number in held_out else None for record in (best, rival, solver))
    others = {"uniform": rival, "solver": solver}
    comparisons = {
        name: _compared(best, other, held_out, outcome.seed) for name, other in others.items() if best and other and other != best
    }
    guarded = best is None or ("uniform" in comparisons and comparisons["uniform"].high >= 1)
    winner = rival if guarded and rival else best
    return replace(
        outcome,
        selection={number: _finding(quality) for number, quality in selection.items()},
        held_out={number: _finding(quality) for number, quality in held_out.items()},
        winner=winner.number if winner else None,
        searched=best.number if best else None,
        uniform=rival.number if rival else None,
        comparisons=comparisons,
    )


def time_deployed(outcome: Outcome, build: Build, step: Step) -> dict[str, dict[str, Any]]:
    """The original, the winner and the best uniform plan as the target runs them, timed end to end in turn.

    Args:
        outcome: With its winner.
        build: Makes the deployed model of a plan.
        step: Is told before each model is built.
    """
    records = distinct([outcome[number] for number in (outcome.winner, outcome.uniform) if number is not None])
    plans = {"original": Plan(), **{str(record.number): record.plan for record in records}}
    models = {}
    for done, (name, plan) in enumerate(plans.items()):
        step("deployed models, timed", done, len(plans))
        models[name] = build(plan)
    return {name: timing.model_dump() for name, timing in time_models(models, outcome.metric == "kl").items()}


def distinct(records: Sequence[Record]) -> list[Record]:
    """The records, the first of each plan."""
    return list({record.plan: record for record in reversed(records)}.values())[::-1]


def _measured(records: Sequence[Record], name: str, title: str, measure: Measure, step: Step) -> dict[int, Quality]:
    """The quality of each on a set, by number of the trial."""
    found = {}
    for done, record in enumerate(records):
        step(title, done, len(records))
        with suppress(EvaluationError):  # not finite on fresh texts: it cannot win
            found[record.number] = measure(record.plan, name)
    return found


def _compared(best: Record, other: Record, held_out: dict[int, Quality], seed: int) -> Comparison:
    found = ratio(held_out[best.number], held_out[other.number], seed=seed)
    return Comparison(number=other.number, mean=found.mean, low=found.low, high=found.high)


def _finding(quality: Quality) -> Finding:
    low, high = interval(quality)
    return Finding(mean=quality.mean, low=low, high=high, documents=len(quality.totals), perplexity=quality.perplexity)
