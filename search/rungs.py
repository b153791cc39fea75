"""Losses that were measured on a part of the search set, as they would be on all of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paredown.search.record import Record

LEAST = 4
"""From so many whole trials on the spread between a rung and the whole set is told by them."""

SPREAD = 0.1
"""Standard deviation of the log ratio before that."""

REFERENCES = 64
"""So many of the latest whole trials tell how a rung compares with the whole set."""


def on_whole_set(records: Sequence[Record]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log loss of each record on the whole set, and how uncertain it is for having been measured on a lower rung.

    The sequences of a rung are harder or easier than the others for all plans alike: what the whole trials lost on the whole set over
    what they lost on the rung carries the rest over (a ratio estimate).

    Args:
        records: At least one of them whole, unless all are.

    Source:
        Cochran, 1977, "Sampling Techniques", 3rd edition, chapter 6: ratio estimators.
    """
    whole = [record for record in records if record.whole and record.sequences][-REFERENCES:]
    ratios = {
        count: _ratio(whole, count) for count in {len(record.sequences) for record in records if not record.whole}
    }
    logs = np.array([np.log(max(record.loss, 1e-300)) for record in records])
    spreads = np.zeros(len(records))
    for index, record in enumerate(records):
        if not record.whole:
            shift, spreads[index] = ratios[len(record.sequences)]
            logs[index] = np.log(max(sum(record.sequences), 1e-300)) + shift
    return logs, spreads


def _ratio(whole: Sequence[Record], count: int) -> tuple[float, float]:
    """Mean and spread of the log of a whole trial's loss over its sum on the first so many sequences."""
    logs = np.array(
        [np.log(max(record.loss, 1e-300)) - np.log(max(sum(record.sequences[:count]), 1e-300)) for record in whole]
    )
    return float(logs.mean()), float(logs.std(ddof=1)) if len(logs) >= LEAST else SPREAD
