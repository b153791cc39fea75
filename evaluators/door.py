"""The one door that measured values pass through."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from paredown.space.errors import EvaluationError, is_out_of_memory


def finite(value: float, what: str) -> float:
    """The value, if it is a number.

    Raises:
        EvaluationError: If it is infinite or not a number.
    """
    if not math.isfinite(value):
        raise EvaluationError(f"{what} is {value}; the plan is left out")
    return float(value)


@contextmanager
def memory_faults() -> Iterator[None]:
    """Work that may take more memory than there is: torch says so in errors of several classes.

    Raises:
        MemoryError: In their place.
    """
    try:
        yield
    except (RuntimeError, OSError) as fault:
        if isinstance(fault, EvaluationError) or not is_out_of_memory(fault):
            raise
        raise MemoryError(f"out of memory: {str(fault).splitlines()[0]}") from None
