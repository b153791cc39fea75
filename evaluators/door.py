"""Checks that every measured value passes: finite, and within memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from paredown.space.errors import EvaluationError, is_out_of_memory


def finite(value: float, what: str) -> float:
    """The value as a float, if it is finite.

    Raises:
        EvaluationError: If it is infinite or NaN.
    """
    if not math.isfinite(value):
        raise EvaluationError(f"{what} is {value}; the plan is left out")
    return float(value)


@contextmanager
def memory_faults() -> Iterator[None]:
    """Turns torch's out-of-memory errors, which come in several classes, into MemoryError.

    Raises:
        MemoryError: In their place.
    """
    try:
        yield
    except (RuntimeError, OSError) as fault:
        if isinstance(fault, EvaluationError) or not is_out_of_memory(fault):
            raise
        raise MemoryError(f"out of memory: {str(fault).splitlines()[0]}") from None
