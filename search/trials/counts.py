"""Progress of a search in words; its unit is the tokens of one plan on the whole search set."""

from __future__ import annotations

UNIT = "trials' worth of tokens"


def worth(spent: float, of: int | None = None) -> str:
    """``17 of 40 trials' worth of tokens``. Capped at ``of``, which the last trial may exceed by a fraction.

    Args:
        spent: Tokens read, in trials on the whole search set.
        of: Trials that were asked for; None if there is no limit.
    """
    whole = int(spent + 1e-9)
    return f"{whole} {UNIT}" if of is None else f"{min(whole, of)} of {of} {UNIT}"


def plans_measured(whole: int, stopped_early: int, failed: int) -> str:
    """``61 plans measured on the whole search set, 82 stopped early, 1 failed``."""
    rest = [f"{count} {what}" for count, what in ((stopped_early, "stopped early"), (failed, "failed")) if count]
    return ", ".join([f"{whole} plan{'' if whole == 1 else 's'} measured on the whole search set", *rest])
