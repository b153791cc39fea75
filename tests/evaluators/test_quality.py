"""How far a model's predictions are from the original's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from paredown.compressors.original.checkpoint import load_original
from paredown.evaluators.door import finite
from paredown.evaluators.metrics import Metric, metric_for
from paredown.evaluators.quality import Quality, Teacher
from paredown.evaluators.sequences import Sequences
from paredown.space.errors import EvaluationError, StudyError, UnknownNameError
from shared import pico as families

Folder = Callable[[str], Path]
LENGTHS = (40, 17, 33, 40, 40)
DOCUMENTS = (0, 1, 2, 0, 2)


def sequences(lengths: Sequence[int] = LENGTHS, documents: Sequence[int] = DOCUMENTS, seed: int = 0) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, families.VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return Sequences(tokens=tokens * mask, mask=mask, document=torch.tensor(documents))


@torch.no_grad()
def damaged(folder: Path, amount: float = 0.05) -> PreTrainedModel:
    """The model with noise on every matrix."""
    model, generator = load_original(folder), torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * amount)
    return model


@torch.no_grad()
def slow(model: PreTrainedModel, row: torch.Tensor) -> np.ndarray:
    """Log-probabilities of the next tokens after each of one sequence without padding, in float64."""
    logits = model(input_ids=row[None], use_cache=False).logits[0].double().numpy()
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_the_original_is_no_distance_from_itself(pico: Folder, name: str) -> None:
    model = load_original(pico(name))
    found = Teacher(model, sequences(), causal=name != "bert").measure(model)
    assert 0 <= found.mean < 1e-6
    assert found.metric == ("relative-error" if name == "bert" else "kl")
    assert (found.perplexity is None) == (name == "bert")


@pytest.mark.parametrize("name", families.CAUSAL_NAMES)
def test_the_divergence_is_what_its_definition_says(pico: Folder, name: str) -> None:
    """Sum of p log(p / q) over each document's tokens, each sequence alone and unpadded; with the perplexity."""
    model, student, data = load_original(pico(name)), damaged(pico(name)), sequences()
    found = Teacher(model, data, causal=True).measure(student)
    totals, tokens, surprise = np.zeros(3), np.zeros(3), 0.0
    for row, length, document in zip(data.tokens, LENGTHS, DOCUMENTS, strict=True):
        p, q = (slow(m, row[:length])[:-1] for m in (model, student))
        totals[document] += (np.exp(p) * (p - q)).sum()
        tokens[document] += length - 1
        surprise -= sum(q[i, int(token)] for i, token in enumerate(row[1:length]))
    assert found.totals == pytest.approx(totals, rel=1e-3)
    assert found.tokens.tolist() == tokens.tolist()
    assert found.perplexity == pytest.approx(np.exp(surprise / tokens.sum()), rel=1e-4)
    assert found.mean == pytest.approx(totals.sum() / tokens.sum(), rel=1e-3)
    assert found.mean > 0.01


@pytest.mark.parametrize("name", ["llama", "opt", "gpt2", "bert"])
def test_padding_and_batches_make_no_difference(pico: Folder, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A padded batch measures what its sequences measure one by one, whatever lies under the padding."""
    model, student, data, causal = load_original(pico(name)), damaged(pico(name)), sequences(), name != "bert"
    whole = Teacher(model, data, causal=causal).measure(student)
    noise = torch.randint(2, families.VOCABULARY, data.tokens.shape, generator=torch.Generator().manual_seed(9))
    noisy = Sequences(tokens=torch.where(data.mask.bool(), data.tokens, noise), mask=data.mask, document=data.document)
    assert Teacher(model, noisy, causal=causal).measure(student).totals == pytest.approx(whole.totals, rel=1e-3)
    monkeypatch.setattr("paredown.evaluators.quality.BATCH_TOKENS", 40)  # one sequence a batch
    assert Teacher(model, data, causal=causal).measure(student).totals == pytest.approx(whole.totals, rel=1e-3)


@torch.no_grad()
def test_an_encoder_is_measured_by_the_error_of_its_last_states(pico: Folder) -> None:
    """Squared, as a share of the squared norm of the original's, over all tokens; padding counts for nothing."""
    model, student, data = load_original(pico("bert")), damaged(pico("bert")), sequences()
    error = norm = 0.0
    for row, length in zip(data.tokens, LENGTHS, strict=True):
        ours, theirs = (m.base_model(input_ids=row[None, :length]).last_hidden_state.double() for m in (student, model))
        error += float((ours - theirs).square().sum())
        norm += float(theirs.square().sum())
    found = Teacher(model, data, causal=False).measure(student)
    assert found.mean == pytest.approx(error / norm, rel=1e-3)
    assert found.tokens.tolist() == [80, 17, 73]


def test_more_damage_is_more_distance(pico: Folder) -> None:
    teacher = Teacher(load_original(pico("llama")), sequences(), causal=True)
    means = [teacher.measure(damaged(pico("llama"), amount)).mean for amount in (0.001, 0.01, 0.1)]
    assert means == sorted(means)


@torch.no_grad()
def test_the_teacher_does_not_follow_its_model(pico: Folder) -> None:
    """Plans are put into the very model that taught: its head, which an embedding may be tied to, changes too."""
    model, data = load_original(pico("llama")), sequences()
    teacher, student = Teacher(model, data, causal=True), damaged(pico("llama"))
    expected = teacher.measure(student).totals
    for parameter in model.parameters():
        parameter.data = 1.5 * parameter.data
    assert teacher.measure(student).totals.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["llama", "bert"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(pico: Folder, name: str, value: float) -> None:
    model = load_original(pico(name))
    teacher = Teacher(model, sequences(), causal=name != "bert")
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "norm" in n.lower()).fill_(value)
    with pytest.raises(EvaluationError, match="is nan; the plan is left out"):
        teacher.measure(model)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_an_original_that_overflows_is_named(pico: Folder, name: str) -> None:
    """All its weights are finite, its predictions are not: no plan of it can be measured."""
    model = load_original(pico(name))
    for parameter_name, parameter in model.named_parameters():
        if "norm" in parameter_name.lower():
            parameter.data.fill_(3e38)
    with pytest.raises(
        EvaluationError, match="the original's own predictions are not finite on these texts; check that nothing"
    ):
        Teacher(model, sequences(), causal=name != "bert")


def test_the_door_lets_numbers_through() -> None:
    assert finite(0.5, "loss") == 0.5
    for value in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(EvaluationError, match=f"loss is {value}; the plan is left out"):
            finite(value, "loss")


def test_the_mean_is_over_tokens_not_documents() -> None:
    found = Quality(metric="kl", totals=np.array([1.0, 8.0]), tokens=np.array([10.0, 20.0]), perplexity=None)
    assert found.mean == pytest.approx(0.3)


def test_a_metric_is_for_causal_models_or_for_encoders() -> None:
    """The other kind is refused, as are unknown names; ``auto`` fits both."""
    assert [metric_for("auto", causal=causal) for causal in (True, False)] == ["kl", "relative-error"]
    assert metric_for("kl", causal=True) == "kl"
    for name, causal, kind in (("kl", False, "causal language models"), ("relative-error", True, "encoders")):
        with pytest.raises(StudyError, match=f"metric {name} is for {kind} only; set metric: auto"):
            metric_for(name, causal=causal)
    with pytest.raises(UnknownNameError, match="unknown metric 'kll'; did you mean 'kl'"):
        metric_for("kll", causal=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"unit": "nats", "share_of": "all"},
        {"unit": "nats", "size": torch.abs},
        {"size": torch.abs, "share_of": "all"},
    ],
)
def test_a_metric_has_a_unit_or_is_a_ratio(wrong: dict[str, Any]) -> None:
    """A ratio is for encoders: the size of log-probabilities is nothing to divide by."""
    with pytest.raises(ValueError, match="a metric has a unit, or is a ratio for encoders with size and share_of"):
        Metric(title="mine", distance=torch.dist, **wrong)
