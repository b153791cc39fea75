"""The winner: chosen on fresh texts, guarded by the best uniform plan."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import toys

from paredown.evaluators.quality import Quality
from paredown.search.finalists import SEARCHED, UNIFORM, Finalists, decide, distinct
from paredown.search.outcome import Outcome
from paredown.search.rebuild import Version
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


def decided(
    outcome: Outcome, fresh: dict[int, float] | None = None, in_order: dict[int, float] | None = None
) -> tuple[Outcome, list[tuple[str, int, Version]]]:
    """The decision, and what was measured for it; losses on fresh texts are as before unless given.

    Args:
        outcome: Of the search.
        fresh: Losses by number.
        in_order: Factors by number of what compressing in order makes of them; plans without one are not calibrated.
    """
    asked: list[tuple[str, int, Version]] = []
    factors = in_order or {}

    def number_of(plan: Plan) -> int:
        return next(record.number for record in outcome.records if record.plan == plan)

    def measure(plan: Plan, name: str, version: Version) -> Quality:
        number = number_of(plan)
        asked.append((name, number, version))
        loss = (fresh or {}).get(number, outcome[number].loss)
        return toys.quality_of(loss * (factors[number] if version.in_order else 1) * (1 + 0.1 * version.draw))

    return decide(outcome, measure, lambda plan: number_of(plan) in factors, lambda name, done, of: None), asked


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
    assert len(asked) == 6
    assert {(name, number) for name, number, _ in asked} == {(name, number) for name in ("selection", "held-out") for number in range(3)}
    assert {version for _, _, version in asked} == {Version()}
    assert set(outcome.comparisons) == {"uniform", "solver"}
    assert outcome.comparisons["solver"].mean == pytest.approx(0.5)


def test_what_the_trials_found_must_beat_the_solver() -> None:
    """A plan that is as good as the solver's own on the selection set is luck of the search set."""
    assert decided(outcome_of(trials("frontier", "solver")), {0: 1.0, 1: 1.0})[0].winner == 1
    assert decided(outcome_of(trials("frontier", "solver")), {0: 0.9, 1: 1.0})[0].winner == 0


def test_what_gains_in_order_is_kept_so() -> None:
    """Each finalist in the version that is better on the selection set; the choice among them follows."""
    outcome, asked = decided(outcome_of(trials("solver", "frontier", "uniform")), {1: 1.2}, {0: 1.01, 1: 0.5, 2: 0.9})
    assert {number: refit.gains for number, refit in outcome.refits.items()} == {0: False, 1: True, 2: True}
    assert outcome.winner == 1
    assert [outcome.in_order(record) for record in outcome.records] == [False, True, True]
    versions = {(number, version.in_order) for name, number, version in asked if name == "held-out"}
    assert versions == {(0, False), (1, True), (2, True)}
    assert outcome.held_out[1].mean == pytest.approx(0.6)


def test_calibrated_plans_are_rebuilt_from_several_draws() -> None:
    """The interval holds what hangs on the draw; a plan that no text decides on is the same for all."""
    outcome, asked = decided(outcome_of(trials("frontier", "uniform")), {0: 1.0, 1: 2.0}, {0: 1.5})
    draws = [(number, version.draw) for name, number, version in asked if name == "held-out"]
    assert sorted(draws) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 0), (1, 0)]
    assert outcome.comparisons["uniform"].mean == pytest.approx(1.1 / 2)
    assert outcome.comparisons["uniform"].low <= 1.0 / 2
    assert outcome.comparisons["uniform"].high >= 1.2 / 2
    assert (outcome.held_out[0].mean, outcome.held_out[0].draws) == (1.0, 3)
    assert outcome.held_out[1].low == pytest.approx(outcome.held_out[1].high)


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
