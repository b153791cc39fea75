"""The decision of a study: its winner, and the measurements on fresh texts that chose it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from paredown.search.trial import Trial


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
class Decision:
    """The winner with the measurements that chose it; empty before the trials are done.

    Attributes:
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
        completion: Command that completes the study; empty if it is complete.
    """

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
    completion: str = ""

    @property
    def gains(self) -> bool | None:
        """Whether the search beats the best uniform plan significantly (95 % interval below 1); None if unknown."""
        comparison = self.comparisons.get("uniform")
        return None if comparison is None else comparison.high < 1

    @property
    def is_complete(self) -> bool:
        """Whether there was time for every measurement that chooses the winner."""
        return not self.unselected and not self.unguarded

    @property
    def named(self) -> set[int]:
        """Numbers of all trials that the decision names."""
        compared = [comparison.number for comparison in self.comparisons.values()]
        chosen = [number for number in (self.winner, self.uniform, self.searched) if number is not None]
        return {*chosen, *compared, *self.selection, *self.refits, *self.held_out}

    def in_order(self, trial: Trial) -> bool:
        """Whether a trial's plan is compressed in order."""
        refit = self.refits.get(trial.number)
        return refit is not None and refit.gains
