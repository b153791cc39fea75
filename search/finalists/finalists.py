"""Finalists: the best trials within the budget, which fresh texts choose among."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paredown.search.finalists.checks import Calibrated, on_held_out, on_selection
from paredown.search.finalists.pace import Measurement
from paredown.search.outcome.outcome import Outcome
from paredown.search.trial import Trial

SEARCHED, UNIFORM = 4, 2
"""Most finalists among the searched plans and among the uniform plans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalists:
    """The best trials within the budget, least loss first.

    Attributes:
        searched: Trials of the search, including those of the solver's plans.
        uniform: Trials of uniform plans.
        solver: The best trial of a solver's plan; None if none fits.
    """

    searched: Sequence[Trial]
    uniform: Sequence[Trial]
    solver: Trial | None

    @classmethod
    def of(cls, outcome: Outcome) -> Finalists:
        """Selects the finalists among all trials of an outcome."""
        fitting = [trial for trial in outcome.trials.measured if outcome.question.allows(trial)]
        fitting.sort(key=lambda trial: (trial.loss, trial.size_bytes, trial.number))
        return cls(
            searched=distinct([trial for trial in fitting if trial.origin != "uniform"])[:SEARCHED],
            uniform=distinct([trial for trial in fitting if trial.origin == "uniform"])[:UNIFORM],
            solver=next((trial for trial in fitting if trial.origin == "solver"), None),
        )

    @property
    def trials(self) -> list[Trial]:
        """All finalists, each plan once."""
        return distinct([*self.searched, *self.uniform, *([self.solver] if self.solver else [])])

    @property
    def compared(self) -> list[Trial]:
        """The plans that the held-out set would compare if the search set chose among the finalists."""
        return distinct([*self.searched[:1], *self.uniform[:1], *([self.solver] if self.solver else [])])


def measurements(outcome: Outcome, calibrated: Calibrated) -> list[Measurement]:
    """The most measurements that choosing the winner can take: finalists on the selection set, then held-out."""
    finalists = Finalists.of(outcome)
    selection = [each for trial in finalists.trials for each in on_selection(trial, calibrated)]
    return [*selection, *on_held_out(finalists.compared, calibrated)]


def distinct(trials: Sequence[Trial]) -> list[Trial]:
    """The trials without duplicate plans; the first of each plan is kept."""
    return list({trial.plan: trial for trial in reversed(trials)}.values())[::-1]
