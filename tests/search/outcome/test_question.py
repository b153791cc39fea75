"""The question: what a study file asks of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from paredown.evaluators.metrics import metrics
from paredown.search.outcome.question import Question
from paredown.search.trial import Times
from paredown.space.budget import Budget
from paredown.space.plan import Plan
from paredown.space.site import Inventory
from paredown.space.study_file import StudyFile
from shared import toys


@pytest.mark.parametrize("causal", [True, False])
def test_an_encoder_is_asked_for_its_hidden_states(causal: bool, inventory: Callable[[str], Inventory]) -> None:
    """A causal model is asked for its next tokens; budget, patience and seed are the file's."""
    study = StudyFile(model="models/made", budget=Budget.parse("30%"), trials=3, patience=7, seed=5)
    model = replace(inventory("llama"), causal=causal)
    question = Question.of(study, model, 1000)
    assert question.metric == ("kl" if causal else "relative-error")
    assert question.metric in metrics
    assert (question.budget, question.budget_bytes, question.patience, question.seed) == ("30%", 1000, 7, 5)
    assert question.original_bytes == model.original_bytes


def test_all_budgets_must_be_met(inventory: Callable[[str], Inventory]) -> None:
    """A plan of exactly the budget is allowed; one whose time is unknown is not, where time is limited."""
    trial = replace(toys.trial_of(toys.toy_space(), Plan(), 1.0), size_bytes=1000)
    question = Question.of(StudyFile(model="m", trials=1, max_decode_ms=2.0), inventory("llama"), 1000)
    assert not question.allows(trial)
    assert question.allows(replace(trial, times=Times(decode_ms=2.0)))
    assert not question.allows(replace(trial, size_bytes=1001, times=Times(decode_ms=1.0)))
    assert replace(question, max_decode_ms=None).allows(trial)
