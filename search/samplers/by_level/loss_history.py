"""Measured losses by plan and rung."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paredown.search.trial import Trial
from paredown.space.plan import Plan


class Measured:
    """Losses by plan and rung, read incrementally from a history of trials that only grows."""

    def __init__(self) -> None:
        self._history: list[Trial] = []
        self._failed: frozenset[Plan] = frozenset()
        self._records: dict[Plan, list[Trial]] = {}

    def grows_to(self, history: Sequence[Trial], failed: frozenset[Plan]) -> bool:
        """Whether this history extends the one that was read."""
        return list(history[: len(self._history)]) == self._history and failed >= self._failed

    def add(self, history: Sequence[Trial], failed: frozenset[Plan]) -> None:
        """Reads the new trials and failures."""
        for trial in history[len(self._history) :]:
            self._records.setdefault(trial.plan, []).append(trial)
        self._history, self._failed = list(history), failed

    def __contains__(self, plan: object) -> bool:
        """Whether a plan was measured or failed."""
        return plan in self._records or plan in self._failed

    def loss(self, plan: Plan, sequences: int | None) -> float | None:
        """Loss of a plan on the first ``sequences`` sequences of the search set; on all of them if None.

        Returns:
            The loss; on a rung the sum over its sequences, comparable only on the same rung. inf if the plan failed,
            None if it was not measured on that many sequences.
        """
        for trial in self._records.get(plan, ()):
            if sequences is None and trial.read.whole:
                return trial.loss
            if sequences is not None and len(trial.read.sequences) >= sequences:
                return sum(trial.read.sequences[:sequences])
        return math.inf if plan in self._failed else None
