"""Finalists: the best of each origin, each plan once."""

from __future__ import annotations

from dataclasses import replace

from paredown.search.finalists.finalists import SEARCHED, UNIFORM, Finalists, distinct
from shared.made_study import outcome_of
from tests.search.finalists.test_decide import trials_of


def test_a_few_of_each_origin_are_finalists() -> None:
    """The best of the search, the best uniform plans, and the solver's plan however it fared."""
    trials = trials_of(*["frontier"] * 8, *["uniform"] * 4, "solver")
    chosen = Finalists.of(outcome_of(trials))
    assert [trial.number for trial in chosen.searched] == list(range(SEARCHED))
    assert [trial.number for trial in chosen.uniform] == list(range(8, 8 + UNIFORM))
    assert {trial.number for trial in chosen.trials} == {*range(SEARCHED), *range(8, 8 + UNIFORM), 12}


def test_the_first_of_each_plan_stays() -> None:
    one, other = trials_of("solver", "frontier")
    assert distinct([one, other, replace(one, number=7)]) in ([one, other], [other, one])
