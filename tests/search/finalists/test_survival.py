"""Survival: the trials' gain over the solver's plan, on the search set and on fresh texts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paredown.search.outcome.outcome import Outcome
from paredown.search.trial import Reading
from shared.made_study import outcome_of
from tests.search.finalists.test_decide import decided, trials_of

NOISE = (0.9, 1.1, 1.0, 1.0)


def searched(*origins: str) -> Outcome:
    """Trials that lose 1, 2, ... on the search set; the first is better in each sequence, not equally so."""
    trials = trials_of(*origins)
    return outcome_of(
        tuple(
            replace(trial, read=Reading(sequences=tuple(trial.loss * (n if trial.number == 0 else 1) for n in NOISE)))
            for trial in trials
        )
    )


def test_both_sets_are_paired_with_the_solvers_plan() -> None:
    """As the trials had it, not in order; on the search set by sequence, on the selection set by document."""
    outcome, _ = decided(searched("frontier", "frontier", "solver"), {0: 2.4, 1: 2.0, 2: 3.0}, {0: 0.5, 2: 0.5})
    found = outcome.decision.survival
    assert found is not None
    assert found.number == 0
    assert found.search.number == found.fresh.number == 2
    assert found.search.mean == pytest.approx(1 / 3)
    assert 0.9 / 3 <= found.search.low < found.search.mean < found.search.high <= 1.1 / 3
    assert found.fresh.mean == pytest.approx(0.8)
    assert 0.7 < found.fresh.low < 0.8 < found.fresh.high < 0.9
