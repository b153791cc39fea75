"""How much of the trials' gain over the solver's plan survives on fresh texts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from paredown.evaluators.comparison import Ratio, ratio
from paredown.evaluators.quality import Quality
from paredown.search.finalists.checks import Selected
from paredown.search.finalists.finalists import Finalists
from paredown.search.outcome.decision import Comparison, Survival
from paredown.search.trial import Trial


def survival_of(finalists: Finalists, selection: Mapping[int, Selected], seed: int) -> Survival | None:
    """Gain of the best trial over the solver's plan, on the search set and on the selection set.

    None if the best trial is a solver's plan, if either was not measured on the selection set, or if the two cannot be
    paired on at least two sequences of the search set.
    """
    best, solver = next(iter(finalists.searched), None), finalists.solver
    if best is None or solver is None or best.origin == "solver" or not {best.number, solver.number} <= set(selection):
        return None
    if len(best.read.sequences) < 2 or len(best.read.sequences) != len(solver.read.sequences):
        return None
    search = ratio(by_sequence(best), by_sequence(solver), seed=seed)
    fresh = ratio(selection[best.number].alone, selection[solver.number].alone, seed=seed)
    return Survival(number=best.number, search=comparison_with(solver, search), fresh=comparison_with(solver, fresh))


def by_sequence(trial: Trial) -> Quality:
    """A trial's losses on the search set as a `Quality`, with each sequence as a document."""
    totals = np.array(trial.read.sequences or (trial.loss,))
    return Quality(metric="", totals=totals, tokens=np.ones_like(totals), perplexity=None)


def comparison_with(other: Trial, found: Ratio) -> Comparison:
    """A ratio to another trial's loss, as an outcome holds it."""
    return Comparison(number=other.number, mean=found.mean, low=found.low, high=found.high)
