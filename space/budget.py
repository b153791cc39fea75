"""What the checkpoint may weigh: ``45%``, ``3.5GB`` or ``4.25bpw``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from paredown.space.errors import StudyError

UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}

MOST = 1e18
"""Bytes, percent or bits a weight; no model is that large, and a slip is likelier."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget as it was asked for.

    Attributes:
        text: As given.
        number: The number in it.
        unit: ``%`` of the original's tensor bytes as stored; ``bpw``, stored bits over original parameters; or bytes.
    """

    text: str
    number: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget that a person wrote.

        Raises:
            StudyError: If it has no such form, no unit, is not above zero, or is beyond all models.
        """
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*(%|bpw|[kmg]i?b|b|)\s*", str(text), re.IGNORECASE)
        if not match or not 0 < float(match[1]) * UNITS.get(match[2].lower(), 1) < MOST:
            raise StudyError(f"expected a budget such as 45%, 3.5GB or 4.25bpw, got {text!r}")
        if not match[2]:
            number = match[1]
            raise StudyError(
                f"{number} has no unit; write {number}% (of the original's bytes), {number}bpw (bits a weight), "
                f"or bytes as {number}B, {number}MB or {number}GB"
            )
        return cls(text=str(text).strip(), number=float(match[1]), unit=match[2].lower())

    def bytes_of(self, original_bytes: int, parameters: int) -> int:
        """The most tensor bytes that it allows; rounded down."""
        if self.unit == "%":
            return math.floor(self.number * original_bytes / 100 + 1e-6)
        if self.unit == "bpw":
            return math.floor(self.number * parameters / 8 + 1e-6)
        return math.floor(self.number * UNITS[self.unit])
