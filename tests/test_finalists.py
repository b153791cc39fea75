"""The winner: chosen on fresh texts, guarded by the best uniform plan."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import toys

from paredown.evaluators.quality import Quality
from paredown.search.finalists import SEARCHED, UNIFORM, Finalists, decide, distinct
from paredown.search.outcome import Outcome
from paredown.search.record import Record
from paredown.space.plan import Plan

SPACE = toys.toy_space()
PLANS = list(itertools.islice(toys.all_plans(SPACE), 24))
SIZE = max(plan.size_bytes(SPACE.inventory) for plan in PLANS)


def trials(*origins: str) -> tuple[Record, ...]:
    """One trial of each origin, each of a plan of its own; every one loses more than the one before."""
    records = [toys.record_of(SPACE, PLANS[number], 1.0 + number, number) for number in range(len(origins))]
    return tuple(replace(record, origin=origin, size_bytes=SIZE) for record, origin in zip(records, origins, strict=True))


def outcome_of(records: tuple[Record, ...], budget_bytes: int = SIZE) -> Outcome:
    return Outcome(
        state="finished",
        model="toy",
        architecture="Toy",
        target="paredown",
        metric="kl",
        original_bytes=SIZE,
        parameters=1,
        budget="1B",
        budget_bytes=budget_bytes,
        original_perplexity=None,
        records=records,
    )


def decided(outcome: Outcome, fresh: dict[int, float] | None = None) -> tuple[Outcome, list[tuple[str, int]]]:
    """The decision, and what was measured for it; losses on fresh texts are as before unless given."""
    asked: list[tuple[str, int]] = []

    def measure(plan: Plan, name: str) -> Quality:
        record = next(record for record in outcome.records if record.plan == plan)
        asked.append((name, record.number))
        return toys.quality_of((fresh or {}).get(record.number, record.loss))

    return decide(outcome, measure, lambda name, done, of: None), asked


def test_a_few_of_each_origin_are_finalists() -> None:
    """The best of the search, the best uniform plans, and the solver's plan however it fared."""
    records = trials(*["frontier"] * 8, *["uniform"] * 4, "solver")
    chosen = Finalists.of(outcome_of(records))
    assert [record.number for record in chosen.searched] == list(range(SEARCHED))
    assert [record.number for record in chosen.uniform] == list(range(8, 8 + UNIFORM))
    assert {record.number for record in chosen.records} == {*range(SEARCHED), *range(8, 8 + UNIFORM), 12}


def test_fresh_texts_choose_among_the_finalists() -> None:
    """The search's best is that of the selection set, not of the search set."""
    outcome, asked = decided(outcome_of(trials("solver", "frontier", "uniform")), {1: 0.5})
    assert outcome.winner == outcome.searched == 1
    assert outcome.uniform == 2
    assert sorted(asked) == sorted((name, number) for name in ("selection", "held-out") for number in range(3))
    assert set(outcome.comparisons) == {"uniform", "solver"}
    assert outcome.comparisons["solver"].mean == pytest.approx(0.5)


def test_what_the_trials_found_must_beat_the_solver() -> None:
    """A plan that is as good as the solver's own on the selection set is luck of the search set."""
    assert decided(outcome_of(trials("frontier", "solver")), {0: 1.0, 1: 1.0})[0].winner == 1
    assert decided(outcome_of(trials("frontier", "solver")), {0: 0.9, 1: 1.0})[0].winner == 0


@pytest.mark.parametrize(("uniform", "winner"), [(1.5, 0), (1.0, 1), (0.9, 1)])
def test_a_plan_no_better_than_the_uniform_one_does_not_win(uniform: float, winner: int) -> None:
    """A ratio whose interval reaches one is no gain."""
    outcome, _ = decided(outcome_of(trials("frontier", "uniform")), {0: 1.0, 1: uniform})
    assert (outcome.winner, outcome.searched, outcome.uniform) == (winner, 0, 1)
    assert outcome.gains == (winner == 0)


def test_a_uniform_plan_within_the_budget_is_a_rival_though_larger() -> None:
    small, large = trials("frontier", "uniform")
    outcome, _ = decided(outcome_of((replace(small, size_bytes=SIZE - 1), large)), {1: 0.1})
    assert (outcome.winner, outcome.uniform) == (1, 1)
    assert outcome.gains is False


def test_uniform_plans_alone_have_a_winner() -> None:
    outcome, _ = decided(outcome_of(trials("uniform", "uniform")), {1: 0.5})
    assert (outcome.winner, outcome.searched) == (1, None)


def test_nothing_within_the_budget_measures_nothing() -> None:
    before = outcome_of(trials("frontier", "uniform"), budget_bytes=1)
    after, asked = decided(before)
    assert after == before
    assert not asked


def test_the_first_of_each_plan_stays() -> None:
    one, other = trials("solver", "frontier")
    assert distinct([one, other, replace(one, number=7)]) in ([one, other], [other, one])
