"""The refusal of an impossible budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from paredown.space.errors import BudgetError


def refusal(
    budget_bytes: int, smallest_bytes: int, original_bytes: int, refusals: Sequence[str] = (), saved: Path | None = None
) -> BudgetError:
    """The error for a budget that no plan meets.

    Args:
        budget_bytes: Requested budget [bytes].
        smallest_bytes: Size of the smallest plan of the space [bytes].
        original_bytes: Size of the original [bytes]; the remedy is a share of it, rounded up so that it can be met.
        refusals: Reasons why sites can only be kept; the message quotes the first.
        saved: Path of the smallest plan, if it was written.
    """
    share = math.ceil(1000 * smallest_bytes / original_bytes) / 10
    return BudgetError(
        f"nothing meets the budget of {budget_bytes:,} bytes: the smallest plan of the space has {smallest_bytes:,}; "
        + (f"it was saved to {saved}; " if saved else "")
        + f"raise the budget to {share:.1f}% or offer smaller choices"
        + (f" ({refusals[0]})" if refusals else "")
    )
