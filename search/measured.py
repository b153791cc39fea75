"""What was measured of each plan, on how many sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paredown.search.record import Record
from paredown.space.plan import Plan


class Measured:
    """Losses by plan and rung, read from a history that grows; what was known of a plan never changes."""

    def __init__(self) -> None:
        self._history: list[Record] = []
        self._failed: frozenset[Plan] = frozenset()
        self._records: dict[Plan, list[Record]] = {}

    def grows_to(self, history: Sequence[Record], failed: frozenset[Plan]) -> bool:
        """Whether this history begins with the one that was read."""
        return list(history[: len(self._history)]) == self._history and failed >= self._failed

    def add(self, history: Sequence[Record], failed: frozenset[Plan]) -> None:
        """Reads what is new."""
        for record in history[len(self._history) :]:
            self._records.setdefault(record.plan, []).append(record)
        self._history, self._failed = list(history), failed

    def __contains__(self, plan: object) -> bool:
        """Whether a plan was measured, or could not be."""
        return plan in self._records or plan in self._failed

    def loss(self, plan: Plan, sequences: int | None) -> float | None:
        """Loss on so many sequences, all for None; infinite where the plan failed, None where it was not measured on so many.

        On a rung it is the sum over its sequences, which may be compared with other plans' on the same rung.
        """
        for record in self._records.get(plan, ()):
            if sequences is None and record.whole:
                return record.loss
            if sequences is not None and len(record.sequences) >= sequences:
                return sum(record.sequences[:sequences])
        return math.inf if plan in self._failed else None
