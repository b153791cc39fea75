"""A measured trial, its objectives and its JSON form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from paredown.search.pareto import pareto_front
from paredown.space.choice import parse_choice
from paredown.space.plan import Plan
from paredown.space.plan_file import choices_of
from paredown.space.site import Inventory

if TYPE_CHECKING:
    from paredown.evaluators.quality import Quality  # imports torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A measured trial.

    Attributes:
        number: Number of the trial.
        origin: ``uniform``, ``solver``, or the name of the sampler.
        label: Description for people: ``4 bits, groups of 64, embedding 8 bits``.
        plan: The measured plan.
        size_bytes: Bytes of the tensors that ``apply`` writes.
        loss: KL divergence [nats/token], or relative error for encoders, on the search set.
        standard_error: Standard error of the loss over documents.
        perplexity: Perplexity on the search set; None for encoders.
        predicted_loss: Loss that the sampler predicted; None without a prediction.
        expected_gain: Expected decrease of the log loss of the best plan within the budget; None as in `Proposal`.
        decode_ms: Predicted time of a decoded token [ms]; None where latency is unknown.
        prefill_ms: Predicted time of a prompt token [ms].
        seconds: Duration of the trial [s].
        sequences: Loss sum of each sequence of the search set that was read, in order.
        whole: Whether the whole search set was read; otherwise the loss is that of a lower rung.
    """

    number: int
    origin: str
    label: str
    plan: Plan
    size_bytes: int
    loss: float
    standard_error: float
    perplexity: float | None
    predicted_loss: float | None = None
    expected_gain: float | None = None
    decode_ms: float | None = None
    prefill_ms: float | None = None
    seconds: float = 0.0
    sequences: tuple[float, ...] = ()
    whole: bool = True

    @classmethod
    def of(cls, plan: Plan, quality: Quality, inventory: Inventory, **known: Any) -> Record:
        """A trial from a plan, its quality on the search set, and further attributes."""
        return cls(
            plan=plan,
            size_bytes=plan.size_bytes(inventory),
            loss=quality.mean,
            standard_error=quality.standard_error,
            perplexity=quality.perplexity,
            sequences=quality.sequences,
            **known,
        )

    @property
    def time_ms(self) -> float | None:
        """Predicted time of a decoded token, or of an input token for encoders [ms]; None where unknown."""
        return self.prefill_ms if self.decode_ms is None else self.decode_ms

    def objectives(self, *, timed: bool) -> tuple[float, ...]:
        """Size and loss, and with ``timed`` the predicted time (infinite where unknown)."""
        time = math.inf if self.time_ms is None else self.time_ms
        return (self.size_bytes, self.loss, time) if timed else (self.size_bytes, self.loss)

    def share_of(self, sequences: int) -> float:
        """Cost of the measurement in whole trials, for a search set of this many sequences."""
        return 1.0 if self.whole else len(self.sequences) / sequences

    def to_mapping(self) -> dict[str, Any]:
        """Values for JSON, with the plan as ``choices``."""
        mapping = {name: getattr(self, name) for name in self.__slots__ if name != "plan"}
        return {**mapping, "choices": choices_of(self.plan)}

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Record:
        """Trial from the mapping that JSON holds.

        Raises:
            ValueError: If a value is missing or has the wrong type; other errors of `DAMAGE` mean the same.
        """
        plan = Plan(tuple((site, parse_choice(choice)) for site, choice in mapping["choices"].items()))
        return _adapter().validate_python({**mapping, "plan": plan})


@cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def front_of(records: Sequence[Record]) -> list[Record]:
    """Trials on the Pareto front of size, loss and (where known) latency, smallest first."""
    timed = any(record.time_ms is not None for record in records)
    front = [records[i] for i in pareto_front([record.objectives(timed=timed) for record in records])]
    return sorted(front, key=lambda record: record.size_bytes)


def is_within(record: Record, budget_bytes: int, max_decode_ms: float | None = None) -> bool:
    """Whether a trial is within the byte budget and the limit on the predicted time of a decoded token."""
    in_time = max_decode_ms is None or (record.decode_ms is not None and record.decode_ms <= max_decode_ms)
    return record.size_bytes <= budget_bytes and in_time


def best_within(records: Sequence[Record], budget_bytes: int, max_decode_ms: float | None = None) -> Record | None:
    """The trial with the lowest loss within the budgets; ties go to the smaller one."""
    fitting = [record for record in records if is_within(record, budget_bytes, max_decode_ms)]
    return min(fitting, key=lambda r: (r.loss, r.size_bytes, r.number), default=None)
