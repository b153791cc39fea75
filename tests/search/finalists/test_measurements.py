"""The finalists' measurements: made once, kept exactly, found again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from paredown.evaluators.quality import Quality
from paredown.search.finalists.measurements import Measurements
from paredown.search.finalists.rebuild import Version
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan
from shared import toys

SPACE = toys.toy_space()
PLAN, OTHER = list(toys.all_plans(SPACE))[:2]
INPUTS = {"weights": "1", "search": "2"}
AWKWARD = (0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 0.0)


class World:
    """Measures plans, each time with another result, and remembers what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[Plan, str, Version]] = []
        self.said: list[str] = []

    def measure(self, plan: Plan, name: str, version: Version) -> Quality:
        self.asked.append((plan, name, version))
        if plan == OTHER:
            raise EvaluationError("kl is nan")
        totals = np.array([*AWKWARD, len(self.asked)])
        return Quality(
            metric="kl", totals=totals, tokens=np.full(7, 1 / 7), perplexity=np.exp(1.1), sequences=(*AWKWARD, 2 / 3)
        )

    def started(self, inputs: object = INPUTS, texts: str = "texts") -> Measurements:
        """What a process has that was just started."""
        return Measurements(self.folder, inputs, lambda draw: f"{texts} {draw}", self.said.append)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "finalists")


def values(quality: Quality) -> tuple[object, ...]:
    return (
        quality.metric,
        quality.totals.tobytes(),
        quality.tokens.tobytes(),
        quality.perplexity,
        repr(quality.sequences),
    )


def test_a_measurement_is_found_again_to_the_last_bit(world: World) -> None:
    """Also by another process, and what it gives is what the first one saw."""
    first = world.started().measure(world.measure, PLAN, "selection", Version())
    again = world.started().measure(world.measure, PLAN, "selection", Version())
    assert len(world.asked) == 1
    assert values(again) == values(first)
    assert again.totals.dtype == again.tokens.dtype == np.float64
    assert [path.suffix for path in world.folder.iterdir()] == [".json"]


def test_nothing_is_asked_twice_in_one_run(world: World) -> None:
    """Three draws of a plan that no text calibrates are one measurement."""
    kept = world.started()
    assert len({values(kept.measure(world.measure, PLAN, "held-out", Version())) for _ in range(3)}) == 1
    assert len(world.asked) == 1


def test_it_is_known_what_is_on_disk(world: World) -> None:
    """Without a measurement, and no damaged file counts."""
    asked = (PLAN, "selection", Version())
    assert not world.started().holds(asked)
    world.started().measure(world.measure, *asked)
    assert world.started().holds(asked)
    assert not world.started().holds((PLAN, "held-out", Version()))
    (path,) = world.folder.iterdir()
    path.write_text(path.read_text()[:-9])
    assert not world.started().holds(asked)
    assert len(world.asked) == 1


def test_what_is_not_finite_is_remembered(world: World) -> None:
    """It fails again, in the same words, without a measurement."""
    for _ in range(2):
        with pytest.raises(EvaluationError, match="kl is nan"):
            world.started().measure(world.measure, OTHER, "selection", Version())
    assert len(world.asked) == 1


def test_whatever_decides_a_measurement_tells_it_from_others(world: World) -> None:
    """Plan, set, version, draw, weights and texts, those of the draw included."""
    asked = [(PLAN, "selection", Version()), (PLAN, "held-out", Version()), (Plan(), "selection", Version())]
    asked += [(PLAN, "selection", Version(in_order=True)), (PLAN, "selection", Version(draw=1))]
    for each in asked * 2:
        world.started().measure(world.measure, *each)
    assert world.asked == asked
    world.started({**INPUTS, "weights": "3"}).measure(world.measure, *asked[0])
    world.started({**INPUTS, "config": "4"}).measure(world.measure, *asked[0])
    world.started(texts="others").measure(world.measure, *asked[0])
    assert len(world.asked) == len(asked) + 3


def damaged(text: str) -> Iterator[str]:
    """Files that are not what was written."""
    content = json.loads(text)
    yield ""
    yield text[: len(text) // 2]
    yield text.replace("0.3", "0.4", 1)
    yield "[" * 100_000
    yield json.dumps([content])
    yield json.dumps({**content, "found": None})
    yield json.dumps({**content, "about": content["about"] | {"set": "held-out"}})
    yield json.dumps({"found": content["found"]})


def test_a_damaged_one_is_measured_again(world: World) -> None:
    """A file that is torn, changed by a digit, of another form or renamed is written again, and whole from then on."""
    world.started().measure(world.measure, PLAN, "selection", Version())
    (path,) = world.folder.iterdir()
    for text in damaged(path.read_text()):
        before = len(world.asked)
        path.write_text(text)
        for _ in range(2):
            world.started().measure(world.measure, PLAN, "selection", Version())
        assert len(world.asked) == before + 1
        assert world.said.pop() == f"{path} is damaged: it is measured again"
    assert world.said == []
    world.started().measure(world.measure, PLAN, "held-out", Version())
    (other,) = set(world.folder.iterdir()) - {path}
    path.write_bytes(other.read_bytes())
    before = len(world.asked)
    world.started().measure(world.measure, PLAN, "selection", Version())
    assert len(world.asked) == before + 1
