"""What a study found, as it stands on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from paredown.search.record import Record, best_within, front_of, is_within
from paredown.space.errors import StudyError
from paredown.space.files import read_stored, write_atomically
from paredown.space.plan_file import Calibration

FILE = "front.json"
METRICS = {
    "kl": ("KL divergence to the original", "nats/token"),
    "relative-error": ("relative error of the final hidden states", ""),
}
"""What a loss is and its unit, by metric."""

STATES = ("searching", "stopped", "finished")
TIMES = {f"{kind}_{value}" for kind in ("decode", "prefill") for value in ("ms", "iqr")}
"""What is known of a deployed model that was timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A plan measured on a set that the search did not see.

    Attributes:
        mean: Loss per token of what is written.
        low: Lower end of the 95 % interval over documents and calibration draws.
        high: Upper end.
        documents: How many.
        perplexity: Per token; None for encoders.
        draws: From how many draws of the calibration texts the plan was rebuilt.
    """

    mean: float
    low: float
    high: float
    documents: int
    perplexity: float | None
    draws: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """Losses of a plan on the selection set: its matrices compressed each for itself, and in order."""

    alone: float
    in_order: float

    @property
    def gains(self) -> bool:
        """Whether compressing in order is better; what does not gain is not kept."""
        return self.in_order < self.alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The winner's held-out loss over another plan's, paired by document, with a 95 % interval."""

    number: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """What the trials gained over the solver's own plan, where it was chosen for that and on fresh texts.

    Attributes:
        number: Of the trial that lost the least on the search set.
        search: Its loss over that of the solver's plan there, paired by sequence.
        fresh: The same on the selection set, paired by document; both plans compressed as the trials had them.
    """

    number: int
    search: Comparison
    fresh: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisional:
    """A plan within the budget that can be applied and was not measured.

    Attributes:
        origin: ``solver`` or ``uniform``.
        label: For people.
        size_bytes: Of the tensors that ``apply`` writes.
        predicted_loss: Sum of the sensitivities; None before they are known.
    """

    origin: str
    label: str
    size_bytes: int
    predicted_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that a report shows.

    Attributes:
        state: ``searching``, ``finished`` or ``stopped``.
        model: Name of the original.
        architecture: Its class.
        target: The runtime.
        metric: ``kl`` [nats/token] or ``relative-error``.
        original_bytes: Tensor bytes of the original as stored.
        parameters: Of the original.
        budget: As it was asked for.
        budget_bytes: The most tensor bytes that it allows.
        original_perplexity: On the search set.
        prices: Predicted loss that one unit more of each budget saves, by its name; empty before the search is finished.
        max_decode_ms: The longest predicted time of a decoded token that it allows; None for any.
        records: Trials measured on the whole search set, by number.
        stopped_early: How many plans were measured on lower rungs only.
        failed: Trials that could not be measured.
        spent: What all of them took, in trials on the whole search set.
        patience: As it was asked for.
        ended: In words why patience ended the trials; empty if something else did.
        selection: Finalists by trial number, on the selection set.
        refits: What compressing in order brought, by trial number; for finalists that calibration texts decide on.
        survival: What the trials gained over the solver's plan, and what of it is left on fresh texts; None where they gained nothing.
        held_out: Winner, best uniform plan and solver's plan by trial number, on the held-out set.
        winner: Number of the trial whose plan is ``best/plan.yaml``; None before the first fits the budget.
        uniform: Number of the best uniform plan within the budget; None if none is that small.
        searched: Number of the search's best, which the uniform plan was compared with.
        comparisons: ``uniform`` and ``solver``: the search's best against these, on the held-out set.
        unselected: In words why the search set chose among the finalists; empty if the selection set did.
        unguarded: In words what of the held-out comparison is missing for want of time; empty if nothing is.
        provisional: The plan that was made before any trial, where none was measured yet.
        completion: The command that goes on with what is missing; empty if nothing is.
        calibration: The texts that calibrated choices were compressed with, as plan files hold them.
        data_sha256: Fingerprints of the four sets.
        latency: Table of the machine that times were predicted for; None where not measured.
        timed: End-to-end times by trial number (``original`` for the original); each with ``decode_ms``, ``prefill_ms``, spreads.
        seconds: Spent in each step.
        environment: Versions and machine.
        seed: Of the study.
    """

    state: str
    model: str
    architecture: str
    target: str
    metric: str
    original_bytes: int
    parameters: int
    budget: str
    budget_bytes: int
    original_perplexity: float | None
    records: tuple[Record, ...]
    stopped_early: int = 0
    failed: int = 0
    spent: float = 0.0
    patience: str | int = "off"
    ended: str = ""
    selection: Mapping[int, Finding] = field(default_factory=dict)
    refits: Mapping[int, Refit] = field(default_factory=dict)
    survival: Survival | None = None
    held_out: Mapping[int, Finding] = field(default_factory=dict)
    winner: int | None = None
    uniform: int | None = None
    searched: int | None = None
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    unselected: str = ""
    unguarded: str = ""
    provisional: Provisional | None = None
    completion: str = ""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    data_sha256: Mapping[str, str] = field(default_factory=dict)
    latency: Mapping[str, Any] | None = None
    timed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str | int] = field(default_factory=dict)
    seed: int = 0
    max_decode_ms: float | None = None
    prices: Mapping[str, float] = field(default_factory=dict)

    @property
    def front(self) -> list[Record]:
        """Trials that no other beats on all objectives, smallest first."""
        return front_of(self.records)

    @property
    def best(self) -> Record | None:
        """The winner, or before it is known the best so far within the budget."""
        if self.winner is not None:
            return self[self.winner]
        return best_within(self.records, self.budget_bytes, self.max_decode_ms)

    def allows(self, record: Record) -> bool:
        """Whether a trial's plan is within what was asked for."""
        return is_within(record, self.budget_bytes, self.max_decode_ms)

    def in_order(self, record: Record) -> bool:
        """Whether a trial's plan is compressed in order."""
        refit = self.refits.get(record.number)
        return refit is not None and refit.gains

    def __getitem__(self, number: int) -> Record:
        return next(record for record in self.records if record.number == number)

    @property
    def gains(self) -> bool | None:
        """Whether the search beats the best uniform plan within the budget beyond the interval; None before that is known."""
        comparison = self.comparisons.get("uniform")
        return None if comparison is None else comparison.high < 1

    def write(self, folder: Path) -> None:
        """Writes ``front.json``, whole or not at all."""
        mapping = {name: getattr(self, name) for name in self.__slots__}
        mapping["records"] = [record.to_mapping() for record in self.records]
        mapping["front"] = [record.number for record in self.front]
        for name in ("selection", "refits", "held_out", "comparisons"):
            mapping[name] = {str(key): asdict(value) for key, value in mapping[name].items()}
        for name in ("survival", "provisional"):
            mapping[name] = asdict(mapping[name]) if mapping[name] else None
        write_atomically(folder / FILE, json.dumps(mapping, indent=1))

    @classmethod
    def read(cls, folder: Path) -> Outcome:
        """The outcome that a study folder holds.

        Raises:
            StudyError: If there is none yet, or it is damaged.
        """
        if not (folder / FILE).is_file():
            raise StudyError(f"{folder} holds no finished trial ({FILE} is missing); give the folder of a search")
        return read_stored(folder / FILE, cls._of, "run the search again: it writes the file from study.db")

    @classmethod
    def _of(cls, mapping: dict[str, Any]) -> Outcome:
        """What JSON holds.

        Raises:
            ValueError: If it does not hang together; other errors of `DAMAGE` where something is missing.
        """
        records = [Record.from_mapping(record) for record in mapping["records"]]
        outcome: Outcome = TypeAdapter(cls).validate_python({**mapping, "records": records})
        compared = {comparison.number for comparison in outcome.comparisons.values()}
        named = {
            outcome.winner,
            outcome.uniform,
            outcome.searched,
            *outcome.selection,
            *outcome.refits,
            *outcome.held_out,
            *compared,
        }
        if unknown := named - {None, *(record.number for record in records)}:
            raise ValueError(f"it names trial {min(filter(None, unknown), default=0)} and does not hold it")
        if not compared <= set(outcome.held_out):
            raise ValueError("it compares plans that it has no held-out measurement of")
        if outcome.metric not in METRICS or outcome.state not in STATES or outcome.original_bytes < 1:
            raise ValueError(
                f"metric {outcome.metric}, state {outcome.state}, {outcome.original_bytes} bytes of the original"
            )
        if any(not set(times) >= TIMES for times in outcome.timed.values()):
            raise ValueError("it lacks times of a deployed model")
        if outcome.calibration:
            Calibration(**outcome.calibration, in_order=False)
        return outcome


def stored_outcome(folder: Path) -> Outcome | None:
    """The outcome that a study folder holds; None if it holds none, or a damaged one, which the search makes again."""
    try:
        return Outcome.read(folder)
    except StudyError:
        return None
