"""What was measured of each plan."""

from __future__ import annotations

import math
from dataclasses import replace

from paredown.search.samplers.by_level.loss_history import Measured
from paredown.search.trial import Reading, Trial
from paredown.space.plan import Plan
from shared import toys

SPACE = toys.toy_space()
ONE, TWO, THREE = toys.all_plans(SPACE)[:3]


def trial(number: int, plan: Plan, sequences: tuple[float, ...], whole: bool) -> Trial:
    return replace(
        toys.trial_of(SPACE, plan, sum(sequences) / 10, number), read=Reading(sequences=sequences, whole=whole)
    )


HISTORY = [
    trial(0, ONE, (1.0, 2.0), False),
    trial(1, ONE, (1.5, 2.5, 3.0, 4.0), True),
    trial(2, TWO, (5.0, 6.0, 7.0, 8.0), True),
]


def test_a_loss_is_that_of_the_first_record_with_so_many_sequences() -> None:
    """So what was known does not change when more is measured; on a rung it is a sum, on all sequences the loss."""
    measured = Measured()
    measured.add(HISTORY, frozenset({ONE, THREE}))
    assert [measured.loss(ONE, n) for n in (1, 2, 3, None)] == [1.0, 3.0, 7.0, 1.1]
    assert [measured.loss(TWO, n) for n in (1, None)] == [5.0, 2.6]
    assert measured.loss(THREE, 1) == math.inf
    assert ONE in measured and THREE in measured and toys.all_plans(SPACE)[3] not in measured


def test_a_plan_that_failed_on_more_keeps_what_was_measured_on_less() -> None:
    measured = Measured()
    measured.add(HISTORY[:1], frozenset({ONE}))
    assert (measured.loss(ONE, 2), measured.loss(ONE, None), measured.loss(TWO, 2)) == (3.0, math.inf, None)


def test_a_history_grows_by_its_end_only() -> None:
    measured = Measured()
    measured.add(HISTORY[:2], frozenset({THREE}))
    assert measured.grows_to(HISTORY, frozenset({THREE, TWO}))
    assert not measured.grows_to(HISTORY[1:], frozenset({THREE}))
    assert not measured.grows_to(HISTORY[:1], frozenset({THREE}))
    assert not measured.grows_to(HISTORY, frozenset())
    measured.add(HISTORY, frozenset({THREE}))
    assert measured.loss(TWO, 4) == 26.0
