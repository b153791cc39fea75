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
class Expectation:
    """What the sampler expected of a trial.

    Attributes:
        loss: Predicted loss; None without a prediction.
        gain: Expected decrease of the log loss of the best plan within the budget; None as in `Proposal`.
    """

    loss: float | None = None
    gain: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Predicted times of a plan; None where latency is unknown.

    Attributes:
        decode_ms: Time of a decoded token [ms]; None for encoders too.
        prefill_ms: Time of a prompt token [ms].
    """

    decode_ms: float | None = None
    prefill_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a trial read of the search set.

    Attributes:
        sequences: Loss sum of each sequence that was read, in order.
        whole: Whether the whole set was read; otherwise the trial's loss is that of a lower rung.
    """

    sequences: tuple[float, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A measured plan.

    Attributes:
        number: Number of the trial.
        origin: ``uniform``, ``solver``, or the name of the sampler.
        label: Description for people: ``4 bits, groups of 64, embedding 8 bits``.
        plan: The measured plan.
        size_bytes: Bytes of the tensors that ``apply`` writes.
        loss: KL divergence [nats/token], or relative error for encoders, on the search set.
        standard_error: Standard error of the loss over documents.
        perplexity: Perplexity on the search set; None for encoders.
        expected: What the sampler expected.
        times: Predicted times.
        seconds: Duration of the trial [s].
        read: What was read of the search set.
    """

    number: int
    origin: str
    label: str
    plan: Plan
    size_bytes: int
    loss: float
    standard_error: float
    perplexity: float | None
    expected: Expectation = Expectation()
    times: Times = Times()
    seconds: float = 0.0
    read: Reading = Reading()

    @classmethod
    def of(cls, plan: Plan, quality: Quality, inventory: Inventory, *, whole: bool = True, **known: Any) -> Trial:
        """A trial from a plan, its quality on the search set, and further attributes."""
        return cls(
            plan=plan,
            size_bytes=plan.size_bytes(inventory),
            loss=quality.mean,
            standard_error=quality.standard_error,
            perplexity=quality.perplexity,
            read=Reading(sequences=quality.sequences, whole=whole),
            **known,
        )

    @property
    def half_width(self) -> float:
        """Half-width of the loss's 95 % interval over documents, by the normal approximation."""
        return 1.96 * self.standard_error

    @property
    def time_ms(self) -> float | None:
        """Predicted time of a decoded token, or of an input token for encoders [ms]; None where unknown."""
        return self.times.prefill_ms if self.times.decode_ms is None else self.times.decode_ms

    def objectives(self, *, timed: bool) -> tuple[float, ...]:
        """Size and loss, and with ``timed`` the predicted time (infinite where unknown)."""
        time = math.inf if self.time_ms is None else self.time_ms
        return (self.size_bytes, self.loss, time) if timed else (self.size_bytes, self.loss)

    def share_of(self, sequences: int) -> float:
        """Cost of the measurement in whole trials, for a search set of this many sequences."""
        return 1.0 if self.read.whole else len(self.read.sequences) / sequences

    def to_mapping(self) -> dict[str, Any]:
        """Values for JSON in one flat object, with the plan as ``choices``."""
        own = ("number", "origin", "label", "size_bytes", "loss", "standard_error", "perplexity")
        return {
            **{name: getattr(self, name) for name in own},
            "predicted_loss": self.expected.loss,
            "expected_gain": self.expected.gain,
            "decode_ms": self.times.decode_ms,
            "prefill_ms": self.times.prefill_ms,
            "seconds": self.seconds,
            "sequences": self.read.sequences,
            "whole": self.read.whole,
            "choices": choices_of(self.plan),
        }

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Trial:
        """Trial from the mapping that JSON holds.

        Raises:
            ValueError: If a value is missing or has the wrong type; other errors of `DAMAGE` mean the same.
        """
        plan = Plan(tuple((site, parse_choice(choice)) for site, choice in mapping["choices"].items()))
        expected = {"loss": mapping.get("predicted_loss"), "gain": mapping.get("expected_gain")}
        return _adapter().validate_python(
            {**mapping, "plan": plan, "expected": expected, "times": mapping, "read": mapping}
        )


@cache
def _adapter() -> TypeAdapter[Trial]:
    return TypeAdapter(Trial)


def front_of(trials: Sequence[Trial]) -> list[Trial]:
    """Trials on the Pareto front of size, loss and (where known) latency, smallest first."""
    timed = any(trial.time_ms is not None for trial in trials)
    front = [trials[i] for i in pareto_front([trial.objectives(timed=timed) for trial in trials])]
    return sorted(front, key=lambda trial: trial.size_bytes)


def is_within(trial: Trial, budget_bytes: int, max_decode_ms: float | None = None) -> bool:
    """Whether a trial is within the byte budget and the limit on the predicted time of a decoded token."""
    in_time = max_decode_ms is None or (trial.times.decode_ms is not None and trial.times.decode_ms <= max_decode_ms)
    return trial.size_bytes <= budget_bytes and in_time


def best_within(trials: Sequence[Trial], budget_bytes: int, max_decode_ms: float | None = None) -> Trial | None:
    """The trial with the lowest loss within the budgets; ties go to the smaller one."""
    fitting = [trial for trial in trials if is_within(trial, budget_bytes, max_decode_ms)]
    return min(fitting, key=lambda r: (r.loss, r.size_bytes, r.number), default=None)
