"""The outcome of a study: its question, the trials, the decision and the circumstances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paredown.search.outcome.decision import Decision
from paredown.search.outcome.question import Question
from paredown.search.trial import Trial, best_within, front_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisional:
    """A plan within the budget that can be applied but was not measured.

    Attributes:
        origin: ``solver`` or ``uniform``.
        label: Description for people.
        size_bytes: Bytes of the tensors that ``apply`` writes.
        predicted_loss: Sum of the sensitivities; None before they are estimated.
    """

    origin: str
    label: str
    size_bytes: int
    predicted_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """The trials of a study so far.

    Attributes:
        measured: Trials measured on the whole search set, by number.
        stopped_early: Number of trials that were measured on lower rungs only.
        failed: Number of trials that could not be measured.
        spent: Tokens read by all trials, in units of one trial on the whole search set.
        ended: Sentence that says why patience ended the trials; empty if something else did.
        original_perplexity: The original's perplexity on the search set.
    """

    measured: tuple[Trial, ...] = ()
    stopped_early: int = 0
    failed: int = 0
    spent: float = 0.0
    ended: str = ""
    original_perplexity: float | None = None

    @property
    def front(self) -> list[Trial]:
        """Pareto front of the trials, smallest first."""
        return front_of(self.measured)

    @property
    def count(self) -> int:
        """Number of trials, whatever became of them."""
        return len(self.measured) + self.stopped_early + self.failed

    def __getitem__(self, number: int) -> Trial:
        return next(trial for trial in self.measured if trial.number == number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """How and where a study was made.

    Attributes:
        calibration: Texts that calibrated choices were compressed with, in the form of a plan file.
        data_sha256: Fingerprints of the four sets, by name.
        latency: Latency table of the machine that times are predicted for, without its kernels; None if latency is off.
        seconds: Time spent in each step [s].
        environment: Versions and machine.
    """

    calibration: Mapping[str, Any] = field(default_factory=dict)
    data_sha256: Mapping[str, str] = field(default_factory=dict)
    latency: Mapping[str, Any] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that a report shows.

    Attributes:
        state: ``searching``, ``finished`` or ``stopped``.
        question: What was asked.
        trials: What was measured to answer it.
        decision: The winner, once it is chosen.
        circumstances: How and where the study was made.
        provisional: The plan that can be applied while no trial is measured yet.
        timed: End-to-end times by trial number, and by ``original`` for the original; each has the keys `TIMES`.
        prices: Predicted loss saved by one more unit of each budget, by its name; empty until the search is finished.
    """

    state: str
    question: Question
    trials: Trials
    decision: Decision = Decision()
    circumstances: Circumstances = Circumstances()
    provisional: Provisional | None = None
    timed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)

    @property
    def best(self) -> Trial | None:
        """The winner; before it is chosen, the best trial within the budget."""
        if self.decision.winner is not None:
            return self.trials[self.decision.winner]
        return best_within(self.trials.measured, self.question.budget_bytes, self.question.max_decode_ms)
