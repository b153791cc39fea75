"""The decision: what it gained, what is compressed in order, and what there was no time for."""

from __future__ import annotations

import pytest

from paredown.search.outcome.decision import Comparison, Decision, Finding, Refit
from paredown.space.plan import Plan
from shared import toys

FINDING = Finding(mean=1.0, low=0.9, high=1.1, documents=4, perplexity=None)


@pytest.mark.parametrize(("high", "gains"), [(0.99, True), (1.0, False), (1.1, False)])
def test_a_gain_is_an_interval_below_one(high: float, gains: bool) -> None:
    """Over the best uniform plan; nothing is known without a comparison with it."""
    against = Comparison(number=1, mean=0.9, low=0.8, high=high)
    assert Decision(comparisons={"uniform": against}).gains is gains
    assert Decision(comparisons={"solver": against}).gains is None


def test_a_plan_is_compressed_in_order_only_if_it_gains() -> None:
    """A trial that was not compressed in order stays as it was measured."""
    refits = {0: Refit(alone=1.0, in_order=0.9), 1: Refit(alone=1.0, in_order=1.0)}
    decision = Decision(refits=refits)
    trials = [toys.trial_of(toys.toy_space(), Plan(), 1.0, number) for number in range(3)]
    assert [decision.in_order(trial) for trial in trials] == [True, False, False]


def test_every_number_is_named() -> None:
    """Wherever a decision holds it, and no other."""
    decision = Decision(
        winner=0,
        uniform=1,
        selection={2: FINDING},
        refits={3: Refit(alone=1.0, in_order=1.0)},
        held_out={4: FINDING},
        comparisons={"solver": Comparison(number=5, mean=1.0, low=1.0, high=1.0)},
    )
    assert decision.named == set(range(6))
    assert Decision().named == set()


def test_what_there_was_no_time_for_is_incomplete() -> None:
    assert Decision().is_complete
    assert not Decision(unselected="no time").is_complete
    assert not Decision(unguarded="no time").is_complete
