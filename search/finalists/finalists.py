"""Finalists: the best trials within the budget, which fresh texts choose among."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paredown.search.finalists.checks import Calibrated, on_held_out, on_selection
from paredown.search.finalists.pace import Measurement
from paredown.search.outcome.outcome import Outcome
from paredown.search.trial import Record

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

    searched: Sequence[Record]
    uniform: Sequence[Record]
    solver: Record | None

    @classmethod
    def of(cls, outcome: Outcome) -> Finalists:
        """Selects the finalists among all trials of an outcome."""
        fitting = [record for record in outcome.trials.measured if outcome.question.allows(record)]
        fitting.sort(key=lambda record: (record.loss, record.size_bytes, record.number))
        return cls(
            searched=distinct([record for record in fitting if record.origin != "uniform"])[:SEARCHED],
            uniform=distinct([record for record in fitting if record.origin == "uniform"])[:UNIFORM],
            solver=next((record for record in fitting if record.origin == "solver"), None),
        )

    @property
    def records(self) -> list[Record]:
        """All finalists, each plan once."""
        return distinct([*self.searched, *self.uniform, *([self.solver] if self.solver else [])])

    @property
    def compared(self) -> list[Record]:
        """The plans that the held-out set would compare if the search set chose among the finalists."""
        return distinct([*self.searched[:1], *self.uniform[:1], *([self.solver] if self.solver else [])])


def measurements(outcome: Outcome, calibrated: Calibrated) -> list[Measurement]:
    """The most measurements that choosing the winner can take: finalists on the selection set, then held-out."""
    finalists = Finalists.of(outcome)
    selection = [each for record in finalists.records for each in on_selection(record, calibrated)]
    return [*selection, *on_held_out(finalists.compared, calibrated)]


def distinct(records: Sequence[Record]) -> list[Record]:
    """The trials without duplicate plans; the first of each plan is kept."""
    return list({record.plan: record for record in reversed(records)}.values())[::-1]
