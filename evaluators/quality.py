"""Quality of a plan: the distance of the model's predictions from the original's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel

from paredown.evaluators.door import finite
from paredown.evaluators.metrics import metric_for, metrics
from paredown.evaluators.sequences import Sequences
from paredown.space.errors import EvaluationError
from paredown.space.system.interruption import stop_if_asked

BATCH_TOKENS = 2048
"""Upper bound on the tokens in a batch, padding included; a batch holds at least one sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A plan's quality on one set, per document.

    Attributes:
        metric: Name of the metric.
        totals: Sum of the metric over each document's tokens; shape ``(documents,)``.
        tokens: Tokens of each document; same shape.
        perplexity: Perplexity per token; None for encoders.
        sequences: Sum of the metric over each sequence's tokens, in the order of the set.
    """

    metric: str
    totals: NDArray[np.float64]
    tokens: NDArray[np.float64]
    perplexity: float | None
    sequences: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Mean of the metric over all tokens."""
        return float(self.totals.sum() / self.tokens.sum())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, with documents as the sampling unit; NaN for a single document."""
        if len(self.totals) < 2:
            return math.nan
        residual = self.totals - self.mean * self.tokens
        return float(np.sqrt(len(residual) / (len(residual) - 1) * np.square(residual).sum()) / self.tokens.sum())


class Teacher:
    """The original's predictions on a set, stored as last hidden states; its own head turns them into exact logits.

    Args:
        model: The original, unchanged.
        sequences: The set.
        causal: True for next-token prediction; False compares final hidden states.
        metric: Name of the metric that `measure` returns; ``auto`` for the usual one.

    Raises:
        EvaluationError: If a prediction is not finite.
    """

    def __init__(self, model: PreTrainedModel, sequences: Sequences, *, causal: bool, metric: str = "auto") -> None:
        self.sequences = sequences
        self.causal = causal
        self.metric = metric_for(metric, causal=causal)
        self._head: tuple[Tensor, Tensor | None] | None = None
        head = model.get_output_embeddings() if causal else None
        states: list[Tensor] = []
        captured: list[Tensor] = []
        hook = (
            head.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0])) if head is not None else None
        )
        for batch in self._batches():
            output = forward(model, batch, causal=causal)
            if not output.isfinite().all():
                raise EvaluationError(
                    "the original's own predictions are not finite on these texts; "
                    "check that nothing in the model overflows"
                )
            if captured:
                hidden = captured.pop()
                assert head is not None
                if not states:
                    bias = getattr(head, "bias", None)
                    # No copy: plans replace the head's weight, none writes into it.
                    self._head = (head.weight.detach(), None if bias is None else bias.detach())
                    if not torch.allclose(linear(hidden, *self._head), output, rtol=1e-4, atol=1e-4):
                        self._head = None  # something follows the head (soft caps, scales): store logits instead
                output = hidden if self._head else output
            states.append(output)
        if hook:
            hook.remove()
        self._states = states
        self._size = self._mean_size(metrics[self.metric].size)

    def _mean_size(self, size: Callable[[Tensor], Tensor] | None) -> Tensor | float:
        """Mean over the tokens of what a ratio is divided by; 1 for a metric that is none."""
        if size is None:
            return 1.0
        sums = [(size(state) * batch.mask).sum() for batch, state in zip(self._batches(), self._states, strict=True)]
        return torch.stack(sums).sum() / self.sequences.mask.sum()

    def _batches(self) -> list[Sequences]:
        return list(self.sequences.batches(max(1, BATCH_TOKENS // self.sequences.tokens.shape[1])))

    def measure(self, model: PreTrainedModel, sequences: int | None = None) -> Quality:
        """Distance of a model from the original on this set.

        Args:
            model: The compressed model.
            sequences: Number of leading sequences to evaluate; None for all.

        Raises:
            EvaluationError: If a prediction is not finite.
        """
        documents = self.sequences.head(len(self.sequences) if sequences is None else sequences).documents
        totals, tokens = np.zeros(documents), np.zeros(documents)
        sums: list[float] = []
        surprise = 0.0
        for batch, state in self._first(sequences):
            difference, nll = self._compared(batch, state, forward(model, batch, causal=self.causal))
            weight = (batch.mask[:, 1:] if self.causal else batch.mask).float()
            if nll is not None:
                surprise += float((nll * weight).sum())
            sums += (difference * weight).sum(1).tolist()
            np.add.at(totals, batch.document.numpy(), (difference * weight).sum(1).double().numpy())
            np.add.at(tokens, batch.document.numpy(), weight.sum(1).double().numpy())
        finite(float(totals.sum()), self.metric)
        perplexity = math.exp(min(surprise / tokens.sum(), 700.0)) if self.causal else None
        return Quality(metric=self.metric, totals=totals, tokens=tokens, perplexity=perplexity, sequences=tuple(sums))

    @torch.inference_mode()
    def _compared(self, batch: Sequences, state: Tensor, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Distance of outputs from the original's, and negative log-likelihood of causal models [nats], per token."""
        distance = metrics[self.metric].distance
        if not self.causal:
            return distance(state, output) / self._size, None
        teacher = linear(state, *self._head) if self._head else state
        student = _log_probabilities(output[:, :-1])
        nll = -student.gather(-1, batch.tokens[:, 1:].unsqueeze(-1)).squeeze(-1)
        return distance(_log_probabilities(teacher[:, :-1]), student) / self._size, nll

    def _first(self, sequences: int | None) -> Iterator[tuple[Sequences, Tensor]]:
        """Batches with the original's states, up to this many sequences."""
        left = len(self.sequences) if sequences is None else sequences
        for batch, state in zip(self._batches(), self._states, strict=True):
            if left <= 0:
                return
            yield batch.head(left), state[:left]
            left -= len(batch)


@torch.inference_mode()
def forward(model: PreTrainedModel, batch: Sequences, *, causal: bool) -> Tensor:
    """Logits ``(sequences, length, vocabulary)`` of a causal model, or an encoder's final hidden states."""
    stop_if_asked()
    if causal:  # no mask needed: padding is on the right, where causal attention never sees it
        logits: Tensor = model(input_ids=batch.tokens, use_cache=False).logits
        return logits
    states: Tensor = model.base_model(input_ids=batch.tokens, attention_mask=batch.mask).last_hidden_state
    return states


def _log_probabilities(logits: Tensor) -> Tensor:
    return logits - logits.logsumexp(-1, keepdim=True)
