"""Size budgets of a checkpoint: ``45%``, ``3.5GB`` or ``4.25bpw``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from paredown.space.errors import StudyError

UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
"""Bytes in each unit."""

MOST = {"%": 1e6, "bpw": 1e6}
"""Upper bounds by unit; other units reach up to `MOST_BYTES`. A larger number is taken for a slip."""

MOST_BYTES = 1e18


@dataclass(frozen=True, slots=True)
class Budget:
    """A size budget as it was given.

    Attributes:
        text: The budget as text.
        number: Its number, in ``unit``.
        unit: ``%`` of the original's tensor bytes as stored; ``bpw``, stored bits per original parameter; or a key of
            `UNITS`.
    """

    text: str
    number: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget that a text such as ``45%`` gives.

        Raises:
            StudyError: If the text has no such form or no unit, or the number is not above zero or too large.
        """
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*(%|bpw|[kmg]i?b|b|)\s*", str(text), re.IGNORECASE)
        if not match or not _is_possible(float(match[1]), match[2].lower()):
            raise StudyError(f"expected a budget such as 45%, 3.5GB or 4.25bpw, got {text!r}")
        if not match[2]:
            number = match[1]
            raise StudyError(
                f"{number} has no unit; write {number}% (of the original's bytes), {number}bpw (bits per weight), "
                f"or bytes as {number}B, {number}MB or {number}GB"
            )
        return cls(text=str(text).strip(), number=float(match[1]), unit=match[2].lower())

    def __str__(self) -> str:
        return self.text

    def bytes_of(self, original_bytes: int, parameters: int) -> int:
        """Largest number of tensor bytes that the budget allows, rounded down."""
        if self.unit == "%":
            return math.floor(self.number * original_bytes / 100 + 1e-6)
        if self.unit == "bpw":
            return math.floor(self.number * parameters / 8 + 1e-6)
        return math.floor(self.number * UNITS[self.unit])


def _is_possible(number: float, unit: str) -> bool:
    return 0 < number * UNITS.get(unit, 1) < MOST.get(unit, MOST_BYTES)
