"""What measurements take, learnt from those of this run."""

from __future__ import annotations

import itertools
import time

import pytest

from paredown.evaluators.quality import Quality
from paredown.search.finalists.pace import REBUILT_PASSES, Measurement, Pace
from paredown.search.finalists.rebuild import Version
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan
from shared import toys

TOKENS = {"calibration": 100, "search": 10, "selection": 20, "held-out": 40}
ONE, OTHER = itertools.islice(toys.all_plans(toys.toy_space()), 2)
ALONE, ORDERED = Version(), Version(in_order=True)


def test_a_set_costs_its_tokens_and_the_originals_pass_once() -> None:
    pace = Pace(TOKENS)
    assert pace.forward(10) == 0
    pace.read(10, 5.0)
    assert pace.seconds([(ONE, "selection", ALONE)]) == pytest.approx(20)
    assert pace.seconds([(ONE, "selection", ALONE), (OTHER, "selection", ALONE)]) == pytest.approx(30)
    assert pace.seconds([(ONE, "held-out", ALONE)] * 2) == pytest.approx(40)


def test_measurements_teach_and_are_not_expected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version compressed again costs the pass and the time of compressing.

    Before the first one, it counts as a multiple of the calibration texts' pass.
    """
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace(TOKENS)

    def measure(plan: Plan, name: str, version: Version) -> Quality:
        now[0] += 7 + 3 * 20 if version.in_order else (20 if plan == OTHER else 40)
        if plan == OTHER and version.in_order:
            raise EvaluationError("not finite")
        return toys.quality_of(1.0)

    measured = pace.timed(measure)
    wanted: list[Measurement] = [(ONE, "selection", ALONE), (ONE, "selection", ORDERED), (OTHER, "selection", ORDERED)]
    measured(*wanted[0])  # 20 tokens of the original and of the plan: a second each
    assert pace.seconds(wanted) == pytest.approx(2 * (20 + REBUILT_PASSES * 100))
    measured(*wanted[1])
    assert pace.seconds(wanted) == pytest.approx(20 + 47)
    with pytest.raises(EvaluationError):
        measured(*wanted[2])
    assert pace.seconds(wanted) == 0
