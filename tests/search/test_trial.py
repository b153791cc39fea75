"""Trials: their JSON form is flat, and a database or ``front.json`` of an earlier version is read."""

from __future__ import annotations

import json

import pytest

from paredown.search.trial import Expectation, Reading, Times, Trial
from paredown.space.plan import Plan
from shared import toys

SPACE = toys.toy_space()
TRIAL = Trial(
    number=3,
    origin="frontier",
    label="moved bytes",
    plan=Plan(),
    size_bytes=5,
    loss=1 / 3,
    standard_error=0.1,
    perplexity=None,
    expected=Expectation(loss=0.25, gain=0.5),
    times=Times(decode_ms=2.0, prefill_ms=0.5),
    seconds=1.5,
    read=Reading(sequences=(1 / 7, 2.0), whole=False),
)


def test_the_json_form_is_flat() -> None:
    """Its keys keep their names and order, whatever the parts of a trial are in the code."""
    assert list(TRIAL.to_mapping().items()) == [
        ("number", 3),
        ("origin", "frontier"),
        ("label", "moved bytes"),
        ("size_bytes", 5),
        ("loss", 1 / 3),
        ("standard_error", 0.1),
        ("perplexity", None),
        ("predicted_loss", 0.25),
        ("expected_gain", 0.5),
        ("decode_ms", 2.0),
        ("prefill_ms", 0.5),
        ("seconds", 1.5),
        ("sequences", (1 / 7, 2.0)),
        ("whole", False),
        ("choices", {}),
    ]


@pytest.mark.parametrize("trial", [TRIAL, toys.trial_of(SPACE, next(iter(toys.all_plans(SPACE))), 0.5)])
def test_a_trial_comes_back_as_it_was(trial: Trial) -> None:
    assert Trial.from_mapping(json.loads(json.dumps(trial.to_mapping()))) == trial


def test_what_an_earlier_version_did_not_write_is_unknown() -> None:
    """A trial without expectation, times and sequences is one of the whole search set."""
    old = toys.trial_of(SPACE, Plan(), 0.5).to_mapping()
    for name in ("predicted_loss", "expected_gain", "decode_ms", "prefill_ms", "sequences", "whole"):
        del old[name]
    assert Trial.from_mapping(old) == toys.trial_of(SPACE, Plan(), 0.5)
