"""The one door that measured values pass through."""

from __future__ import annotations

import math

from paredown.space.errors import EvaluationError


def finite(value: float, what: str) -> float:
    """The value, if it is a number.

    Raises:
        EvaluationError: If it is infinite or not a number.
    """
    if not math.isfinite(value):
        raise EvaluationError(f"{what} is {value}; the plan is left out")
    return float(value)
