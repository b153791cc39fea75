"""Losses measured on part of the search set, extrapolated to the whole set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from paredown.search.trial import Trial

LEAST = 4
"""Fewest whole trials from which the spread between a rung and the whole set is estimated."""

SPREAD = 0.1
"""Assumed standard deviation of the log ratio with fewer whole trials."""

REFERENCES = 64
"""Most whole trials, the latest, that calibrate a rung against the whole set."""

LIKELY = 0.2
"""Least probability of beating the best plan at which a plan is promoted from its rung to the whole search set."""

WAITING = 64
"""Most trials that a promotion considers, on lower rungs and on the whole search set each: the latest ones."""


def on_whole_set(trials: Sequence[Trial]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log loss of each trial on the whole set, and its uncertainty from having been measured on a lower rung.

    A rung's sequences are easier or harder than the others for all plans alike. A ratio estimate corrects for that: the
    losses of the whole trials on the whole set over their losses on the rung.

    Args:
        trials: Trials; at least one must be whole if any is not.

    Returns:
        Log losses and standard deviations, shape ``(n,)`` each; the deviation of a whole trial is 0.

    Source:
        Cochran, 1977, "Sampling Techniques", 3rd edition, chapter 6: ratio estimators.
    """
    whole = [trial for trial in trials if trial.read.whole and trial.read.sequences][-REFERENCES:]
    ratios = {
        count: _ratio(whole, count) for count in {len(trial.read.sequences) for trial in trials if not trial.read.whole}
    }
    logs = np.array([np.log(max(trial.loss, 1e-300)) for trial in trials])
    spreads = np.zeros(len(trials))
    for index, trial in enumerate(trials):
        if not trial.read.whole:
            shift, spreads[index] = ratios[len(trial.read.sequences)]
            logs[index] = np.log(max(sum(trial.read.sequences), 1e-300)) + shift
    return logs, spreads


def likeliest(whole: Sequence[Trial], waiting: Sequence[Trial], best: float) -> tuple[Trial, float] | None:
    """The trial on a lower rung likeliest to beat a loss on the whole set, and its expected loss there.

    None if its probability is below `LIKELY`.

    Args:
        whole: Trials on the whole set; at least one.
        waiting: Trials on lower rungs; at least one.
        best: The loss to beat.
    """
    waiting = waiting[-WAITING:]
    logs, spreads = (values[-len(waiting) :] for values in on_whole_set([*whole[-WAITING:], *waiting]))
    likely = norm.cdf((np.log(best) - logs) / np.maximum(spreads, 1e-9))
    chosen = int(likely.argmax())
    return (waiting[chosen], float(np.exp(logs[chosen]))) if likely[chosen] >= LIKELY else None


def _ratio(whole: Sequence[Trial], count: int) -> tuple[float, float]:
    """Mean and spread of the log ratio of the whole trials' losses to their sums over the first ``count`` sequences."""
    logs = np.array(
        [np.log(max(trial.loss, 1e-300)) - np.log(max(sum(trial.read.sequences[:count]), 1e-300)) for trial in whole]
    )
    return float(logs.mean()), float(logs.std(ddof=1)) if len(logs) >= LEAST else SPREAD
