"""When trials are not worth going on with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from paredown.search.record import Record
from paredown.search.samplers import Question

PROPOSALS = 16
"""So many new plans must promise too little together; with rungs they take a dozen whole trials, those included that climb."""

PLAIN = 50
"""Trials without a better plan, in whole ones, after which ``auto`` ends in any case; also where the sampler promises nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Says after every trial whether to go on; a function of the trials alone, so that a study which was interrupted ends where it would
    have.

    Attributes:
        asked: ``auto``, or the number of trials without a better plan, in whole ones.
        question: What the trials are to answer.
        first: Number of the first trial that the sampler proposes; those before are measured in any case.
    """

    asked: str | int
    question: Question
    first: int

    def ended(self, history: Sequence[Record], failed: Collection[int] = ()) -> str:
        """In words why the trials are over; empty if they are not.

        With ``auto`` they are over when what the last plans were expected to lower the loss by is, all together, less than the paired
        standard error with which the search set tells such a plan from the best one: what would be gained could not be seen. That
        needs a sampler that says what it expects, and ``focus: budget``.

        Args:
            history: All trials that were measured, by number.
            failed: Numbers of those that could not be measured.
        """
        if self.asked == "auto" and (words := self._promises_little(history)):
            return words
        if self._since_better(history, failed) < self._most:
            return ""
        return f"{self._most} trials brought no plan that is better than the best one by more than the paired standard error"

    def left(self, history: Sequence[Record], failed: Collection[int] = ()) -> float:
        """Whole trials after which they are over at the latest, if none brings a better plan; those before ``first`` included."""
        return max(self.first - len(history) - len(failed), 0) + max(
            self._most - self._since_better(history, failed), 0.0
        )

    @property
    def _most(self) -> int:
        return PLAIN if self.asked == "auto" else int(self.asked)

    def _promises_little(self, history: Sequence[Record]) -> str:
        latest = [record for record in history if record.expected_gain is not None][-PROPOSALS:]
        fitting = sorted(
            (record for record in history if self._fits(record)), key=lambda record: (record.loss, record.number)
        )
        errors = []
        for record in latest:
            rival = next((other for other in fitting if other.plan != record.plan), None)
            errors += [paired_error(record.sequences, rival.sequences, self.question.sequences)] if rival else []
        gain, error = sum(record.expected_gain or 0.0 for record in latest), float(np.mean(errors)) if errors else 0.0
        if len(errors) < PROPOSALS or gain >= error:
            return ""
        return (
            f"the last {PROPOSALS} new plans were expected to lower the loss by {100 * gain:.2g} % in all, "
            f"less than the paired standard error of {100 * error:.2g} % with which the search set tells one from the best"
        )

    def _since_better(self, history: Sequence[Record], failed: Collection[int]) -> float:
        """What was measured since a plan was found that is better beyond the error, or since the sampler's first, in whole trials."""
        marks: list[Record] = []
        for record in history:
            if self._fits(record) and self._is_better(record, marks):
                marks.append(record)
        last = max([self.first - 1, *(mark.number for mark in marks[-1:])])
        spent = sum(record.share_of(self.question.sequences) for record in history if record.number > last)
        return spent + sum(number > last for number in failed)

    def _is_better(self, record: Record, marks: Sequence[Record]) -> bool:
        """Than all plans that it competes with: those within the budget, or with ``focus: front`` those that are no larger."""
        front = self.question.focus == "front"
        rivals = [mark for mark in marks if not front or mark.size_bytes <= record.size_bytes]
        best = min(rivals, key=lambda mark: mark.loss, default=None)
        if best is None:
            return True
        error = paired_error(record.sequences, best.sequences, self.question.sequences)
        return record.loss < best.loss and float(np.log(best.loss / record.loss)) > error

    def _fits(self, record: Record) -> bool:
        """Whether a whole trial may be the answer."""
        question = self.question
        if (
            not record.whole
            or record.loss <= 0
            or (question.focus == "budget" and record.size_bytes > question.budget_bytes)
        ):
            return False
        return all(limit.allows(record.plan, question.space.inventory) for limit in question.solver.limits)


def paired_error(ours: Sequence[float], theirs: Sequence[float], sequences: int) -> float:
    """Standard error of the logarithm of the ratio of two losses, sequences taken as the sample.

    Args:
        ours: Sums over the first sequences of a set.
        theirs: Of another plan, over the same ones or more.
        sequences: Of the whole set, for which the error is given.

    Source:
        Cochran, 1977, "Sampling Techniques", 3rd edition, chapter 6: ratio estimators.
    """
    count = min(len(ours), len(theirs))
    own, other = np.array(ours[:count]), np.array(theirs[:count])
    if count < 2 or own.sum() <= 0 or other.sum() <= 0:
        return 0.0
    residual = count * (own / own.sum() - other / other.sum())
    return float(np.sqrt(np.square(residual).sum() / (count - 1) / sequences))
