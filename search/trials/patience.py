"""The stopping rule: when further trials are no longer worth their time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from paredown.search.samplers import Problem
from paredown.search.trial import Trial

PROPOSALS = 16
"""Number of latest new plans whose expected gains are summed; with rungs they cost about a dozen whole trials,
promotions included."""

PLAIN = 50
"""Trials without a better plan, in whole ones, after which ``auto`` stops even if the sampler predicts no gains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The decision, after every trial, whether to stop.

    It depends on the trials alone, so an interrupted study stops at the same trial once it is resumed.

    Attributes:
        asked: ``auto``, or the number of trials without a better plan, in whole ones.
        problem: The problem that the trials work on.
        first: Number of the first trial that the sampler proposes; the trials before it are always measured.
    """

    asked: str | int
    problem: Problem
    first: int

    def ended(self, history: Sequence[Trial], failed: Collection[int] = ()) -> str:
        """Sentence that says why the trials end; empty while they continue.

        ``auto`` stops when the summed expected gain of the latest new plans falls below the measurement noise: the
        paired standard error between such a plan and the best one on the search set. This needs a sampler that
        predicts its gain, and ``focus: budget``.

        Args:
            history: All measured trials, by number.
            failed: Numbers of the trials that could not be measured.
        """
        if self.asked == "auto" and (words := self._promises_little(history)):
            return words
        if self._since_better(history, failed) < self._most:
            return ""
        return f"{self._most} trials brought no plan that beats the best one by more than the paired standard error"

    def left(self, history: Sequence[Trial], failed: Collection[int] = ()) -> float:
        """Most whole trials still to come if none finds a better plan; those before ``first`` included."""
        return max(self.first - len(history) - len(failed), 0) + max(
            self._most - self._since_better(history, failed), 0.0
        )

    @property
    def _most(self) -> int:
        return PLAIN if self.asked == "auto" else int(self.asked)

    def _promises_little(self, history: Sequence[Trial]) -> str:
        latest = [trial for trial in history if trial.expected.gain is not None][-PROPOSALS:]
        fitting = sorted(
            (trial for trial in history if self._fits(trial)), key=lambda trial: (trial.loss, trial.number)
        )
        errors = []
        for trial in latest:
            rival = next((other for other in fitting if other.plan != trial.plan), None)
            errors += (
                [paired_error(trial.read.sequences, rival.read.sequences, self.problem.sequences)] if rival else []
            )
        gain, error = sum(trial.expected.gain or 0.0 for trial in latest), float(np.mean(errors)) if errors else 0.0
        if len(errors) < PROPOSALS or gain >= error:
            return ""
        return (
            f"the expected gains of the last {PROPOSALS} new plans add up to {100 * gain:.2g} %, less than the paired "
            f"standard error of {100 * error:.2g} % between one of them and the best plan on the search set"
        )

    def _since_better(self, history: Sequence[Trial], failed: Collection[int]) -> float:
        """Whole trials measured since the last significantly better plan, or since the sampler's first trial."""
        marks: list[Trial] = []
        for trial in history:
            if self._fits(trial) and self._is_better(trial, marks):
                marks.append(trial)
        last = max([self.first - 1, *(mark.number for mark in marks[-1:])])
        spent = sum(trial.share_of(self.problem.sequences) for trial in history if trial.number > last)
        return spent + sum(number > last for number in failed)

    def _is_better(self, trial: Trial, marks: Sequence[Trial]) -> bool:
        """Whether a trial is significantly better than all ``marks``, or with ``focus: front`` than those no larger."""
        front = self.problem.focus == "front"
        rivals = [mark for mark in marks if not front or mark.size_bytes <= trial.size_bytes]
        best = min(rivals, key=lambda mark: mark.loss, default=None)
        if best is None:
            return True
        error = paired_error(trial.read.sequences, best.read.sequences, self.problem.sequences)
        return trial.loss < best.loss and float(np.log(best.loss / trial.loss)) > error

    def _fits(self, trial: Trial) -> bool:
        """Whether a trial can be the answer: measured on the whole search set and within all limits."""
        problem = self.problem
        if (
            not trial.read.whole
            or trial.loss <= 0
            or (problem.focus == "budget" and trial.size_bytes > problem.budget_bytes)
        ):
            return False
        return all(limit.allows(trial.plan, problem.space.inventory) for limit in problem.solver.limits)


def paired_error(ours: Sequence[float], theirs: Sequence[float], sequences: int) -> float:
    """Paired standard error of the log ratio of two losses, with the sequences as the sample.

    Args:
        ours: Loss sums over the first sequences of a set.
        theirs: Loss sums of another plan over the same sequences, or more of them.
        sequences: Number of sequences in the whole set, which the error is scaled to.

    Source:
        Cochran, 1977, "Sampling Techniques", 3rd edition, chapter 6: ratio estimators.
    """
    count = min(len(ours), len(theirs))
    own, other = np.array(ours[:count]), np.array(theirs[:count])
    if count < 2 or own.sum() <= 0 or other.sum() <= 0:
        return 0.0
    residual = count * (own / own.sum() - other / other.sum())
    return float(np.sqrt(np.square(residual).sum() / (count - 1) / sequences))
