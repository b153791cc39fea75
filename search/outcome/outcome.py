"""The outcome of a study: everything that its reports show, stored as ``front.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from paredown.search.trial import Record, best_within, front_of, is_within
from paredown.space.errors import StudyError
from paredown.space.plan_file import Calibration
from paredown.space.system.files import read_stored, write_atomically

FILE = "front.json"
METRICS = {
    "kl": ("KL divergence to the original", "nats/token"),
    "relative-error": ("relative error of the final hidden states", ""),
}
"""Name and unit of the loss, by metric; the unit is empty for a ratio."""

STATES = ("searching", "stopped", "finished")
TIMES = {f"{kind}_{value}" for kind in ("decode", "prefill") for value in ("ms", "iqr")}
"""Keys of a deployed model's end-to-end timing: median and interquartile range per token [ms], decode and prefill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A plan's quality on a set that no trial read.

    Attributes:
        mean: Loss per token of the plan as written (calibration draw 0).
        low: Lower end of the 95 % interval over documents and calibration draws.
        high: Upper end of that interval.
        documents: Number of documents.
        perplexity: Perplexity per token; None for encoders.
        draws: Number of calibration draws that the plan was rebuilt from.
    """

    mean: float
    low: float
    high: float
    documents: int
    perplexity: float | None
    draws: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """A plan's losses on the selection set, compressed in two ways.

    Attributes:
        alone: Loss with each matrix compressed independently, on the original's inputs.
        in_order: Loss with each matrix compressed on the inputs that the compressed matrices before it give.
    """

    alone: float
    in_order: float

    @property
    def gains(self) -> bool:
        """Whether compressing in order is better; otherwise the plan stays as the trial measured it."""
        return self.in_order < self.alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Ratio of the held-out loss of the search's best plan to another plan's, paired by document, with a 95 % interval.

    Attributes:
        number: Trial number of the other plan.
        mean: The ratio; below 1 the search's best is better.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    number: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """The gain of the trials over the solver's plan, on the search set and on fresh texts.

    Attributes:
        number: Number of the trial with the lowest loss on the search set.
        search: Ratio of its loss to the solver's plan's on the search set, paired by sequence.
        fresh: The same ratio on the selection set, paired by document; both plans compressed as the trials had them.
    """

    number: int
    search: Comparison
    fresh: Comparison


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
class Outcome:
    """Everything that a report shows.

    Attributes:
        state: ``searching``, ``finished`` or ``stopped``.
        model: Name of the original.
        architecture: Class of the original.
        target: Name of the target runtime.
        metric: ``kl`` [nats/token] or ``relative-error``.
        original_bytes: Tensor bytes of the original as stored.
        parameters: Number of parameters of the original.
        budget: The budget as the study file gives it.
        budget_bytes: Most tensor bytes that the budget allows.
        original_perplexity: The original's perplexity on the search set.
        prices: Predicted loss saved by one more unit of each budget, by its name; empty until the search is finished.
        max_decode_ms: Most predicted time of a decoded token [ms]; None without a limit.
        records: Trials measured on the whole search set, by number.
        stopped_early: Number of trials that were measured on lower rungs only.
        failed: Number of trials that could not be measured.
        spent: Tokens read by all trials, in units of one trial on the whole search set.
        patience: The study's ``patience``.
        ended: Sentence that says why patience ended the trials; empty if something else did.
        selection: Quality of the finalists on the selection set, by trial number.
        refits: Losses of the calibrated finalists compressed independently and in order, by trial number.
        survival: Gain of the trials over the solver's plan, on the search set and on fresh texts; None without a gain.
        held_out: Quality of the search's best, the best uniform plan and the solver's plan on the held-out set, by
            trial number.
        winner: Number of the trial whose plan is ``best/plan.yaml``; None before the winner is chosen.
        uniform: Number of the best uniform plan within the budget; None if no uniform plan is that small.
        searched: Number of the search's best plan, which is compared with the best uniform plan.
        comparisons: Held-out loss of the search's best over the ``uniform`` and the ``solver`` plan.
        unselected: Sentence that says why the search set chose among the finalists; empty if the selection set did.
        unguarded: Sentence that says what part of the held-out comparison there was no time for; empty if none.
        provisional: The plan that can be applied while no trial is measured yet.
        completion: Command that completes the study; empty if it is complete.
        calibration: Texts that calibrated choices were compressed with, in the form of a plan file.
        data_sha256: Fingerprints of the four sets, by name.
        latency: Latency table of the machine that times are predicted for, without its kernels; None if latency is off.
        timed: End-to-end times by trial number, and by ``original`` for the original; each has the keys `TIMES`.
        seconds: Time spent in each step [s].
        environment: Versions and machine.
        seed: Seed of the study.
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
        """Pareto front of the trials, smallest first."""
        return front_of(self.records)

    @property
    def best(self) -> Record | None:
        """The winner; before it is chosen, the best trial within the budget."""
        if self.winner is not None:
            return self[self.winner]
        return best_within(self.records, self.budget_bytes, self.max_decode_ms)

    def allows(self, record: Record) -> bool:
        """Whether a trial's plan is within all budgets."""
        return is_within(record, self.budget_bytes, self.max_decode_ms)

    def in_order(self, record: Record) -> bool:
        """Whether a trial's plan is compressed in order."""
        refit = self.refits.get(record.number)
        return refit is not None and refit.gains

    def __getitem__(self, number: int) -> Record:
        return next(record for record in self.records if record.number == number)

    @property
    def gains(self) -> bool | None:
        """Whether the search beats the best uniform plan significantly (95 % interval below 1); None if unknown."""
        comparison = self.comparisons.get("uniform")
        return None if comparison is None else comparison.high < 1

    def write(self, folder: Path) -> None:
        """Writes ``front.json`` atomically."""
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
        """Outcome stored in a study folder.

        Raises:
            StudyError: If there is none yet, or it is damaged.
        """
        if not (folder / FILE).is_file():
            raise StudyError(f"{folder} holds no finished trial ({FILE} is missing); give the folder of a search")
        return read_stored(folder / FILE, cls._of, "run the search again to rewrite it from study.db")

    @classmethod
    def _of(cls, mapping: dict[str, Any]) -> Outcome:
        """Outcome from the mapping that ``front.json`` holds.

        Raises:
            ValueError: If the mapping is inconsistent; a missing part raises another error of `DAMAGE`.
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
            raise ValueError(f"it names trial {min(filter(None, unknown), default=0)} but does not contain it")
        if not compared <= set(outcome.held_out):
            raise ValueError("it compares plans that have no held-out measurement")
        if outcome.metric not in METRICS or outcome.state not in STATES or outcome.original_bytes < 1:
            raise ValueError(
                f"metric {outcome.metric}, state {outcome.state}, {outcome.original_bytes} bytes of the original"
            )
        if any(not set(times) >= TIMES for times in outcome.timed.values()):
            raise ValueError("times of a deployed model are missing")
        if outcome.calibration:
            Calibration(**outcome.calibration, in_order=False)
        return outcome


def stored_outcome(folder: Path) -> Outcome | None:
    """Outcome stored in a study folder; None if it is missing or damaged: the search then rewrites it."""
    try:
        return Outcome.read(folder)
    except StudyError:
        return None
