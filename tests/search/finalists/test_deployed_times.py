"""Deployed models are timed as far as memory holds them, and the winner stands whatever comes of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
from transformers import PreTrainedModel

from paredown.deploy.engines.transformers import TorchModel
from paredown.evaluators import timing
from paredown.search.finalists.deployed_times import time_deployed
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan
from shared import pico as families
from shared.made_study import changed, outcome_of
from tests.search.finalists.test_decide import trials_of


class Builder:
    """Builds a pico model for each plan, and counts how many are alive at once."""

    def __init__(self, fault: Callable[[int, int], Exception | None] = lambda turn, alive: None) -> None:
        self.fault, self.turns, self.most = fault, 0, 0
        self.models: weakref.WeakSet[PreTrainedModel] = weakref.WeakSet()

    def __call__(self, plan: Plan) -> TorchModel:
        self.turns += 1
        if fault := self.fault(self.turns, len(self.models)):
            raise fault
        model = families.build("llama")
        self.models.add(model)
        self.most = max(self.most, len(self.models))
        return TorchModel(model, causal=True)


def timed(builder: Builder, at_once: int, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], list[str]]:
    """Whose times were found for trial 0, its rival 1 and the original, and what was said."""
    monkeypatch.setattr(timing, "REPEATS", 1)
    outcome = changed(outcome_of(trials_of("frontier", "uniform")), winner=0, uniform=1)
    said: list[str] = []
    found = time_deployed(outcome, builder, at_once, lambda name, done, of: None, said.append)
    assert all(times["decode_ms"] > 0 for times in found.values())
    return set(found), said


ALL = {"original", "0", "1"}


@pytest.mark.parametrize(("at_once", "most"), [(3, 3), (2, 1), (1, 1)])
def test_deployed_models_are_timed_together_where_memory_holds_them(
    at_once: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one after the other: never more of them are alive than fit."""
    builder = Builder()
    assert timed(builder, at_once, monkeypatch) == (ALL, [])
    assert builder.most == most


def test_memory_that_is_less_than_it_said_is_enough_for_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """In torch's words, too."""
    told = "DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes"
    for builder in (
        Builder(lambda turn, alive: MemoryError() if alive else None),
        Builder(lambda turn, alive: RuntimeError(told) if alive else None),
    ):
        assert timed(builder, 3, monkeypatch) == (ALL, [])
        assert builder.most == 1


def test_what_cannot_be_timed_leaves_the_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for one model, none in truth, or times that are no numbers: one line, and the times that were found."""
    assert timed(Builder(), 0, monkeypatch) == (
        set(),
        ["the deployed models were not all timed (the study's memory does not hold one of them); the winner stands"],
    )
    found, said = timed(Builder(lambda turn, alive: MemoryError() if turn > 1 else None), 3, monkeypatch)
    assert (found, len(said)) == (set(), 1)
    assert "(out of memory)" in said[0]
    found, said = timed(
        Builder(lambda turn, alive: EvaluationError("time is nan") if turn > 1 else None), 1, monkeypatch
    )
    assert (found, len(said)) == ({"original"}, 1)
    assert "(time is nan)" in said[0]
    with pytest.raises(RuntimeError, match="a bug"):
        timed(Builder(lambda turn, alive: RuntimeError("a bug")), 3, monkeypatch)
