"""Measured plans that the surrogate learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paredown.search.pareto import lower_left
from paredown.search.surrogate.features import Basis, Row
from paredown.search.surrogate.rung_correction import on_whole_set
from paredown.search.trial import Trial

Floats = NDArray[np.float64]

FEWEST, MOST = 128, 512
SHARES = 460_000
"""Least and most trials that are fitted, and within these the most entries of their matrix: trials times (site, choice)
pairs. The trials on the front and the latest ones are used."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredPlans:
    """Measured plans with a loss above zero, whose choices all have a sensitivity.

    Attributes:
        rows: The plans.
        logs: Log losses on the whole search set, ``(n,)``.
        spreads: Standard deviations of ``logs`` from lower rungs, ``(n,)``.
        middle: Median of the plans' levels, their predicted log losses.
        levels: Levels less the middle, ``(n,)``.
        front: Sizes and levels of the plans on the front of size and loss, by size, ``(k, 2)``.
    """

    rows: Sequence[Row]
    logs: Floats
    spreads: Floats
    middle: float
    levels: Floats
    front: Floats

    @classmethod
    def of(cls, basis: Basis, trials: Sequence[Trial]) -> MeasuredPlans | None:
        """The plans of some trials; None if no plan was measured on the whole set."""
        most = min(max(SHARES // max(len(basis.pairs), 1), FEWEST), MOST)
        chosen = latest([trial for trial in trials if trial.loss > 0], most)
        rows = [(trial, row) for trial in chosen if (row := basis.row_of(trial)) is not None and len(row.columns)]
        known = [trial for trial, _ in rows]
        if not any(trial.read.whole for trial in known):
            return None
        logs, spreads = on_whole_set(known)
        levels = basis.levels([row for _, row in rows])
        middle = float(np.median(levels))
        front = lower_left([(trial.size_bytes, loss) for trial, loss in zip(known, logs, strict=True)])
        return cls(
            rows=[row for _, row in rows],
            logs=logs,
            spreads=spreads,
            middle=middle,
            levels=levels - middle,
            front=np.array(sorted((known[i].size_bytes, levels[i] - middle) for i in front)),
        )


def latest(trials: Sequence[Trial], most: int) -> list[Trial]:
    """At most ``most`` trials: those on the front of size and loss (up to half), then the newest; by number."""
    if len(trials) <= most:
        return list(trials)
    whole = [trial for trial in trials if trial.read.whole]
    front = [whole[i] for i in lower_left([(trial.size_bytes, trial.loss) for trial in whole])]
    chosen = {trial.number: trial for trial in front[:: -(-len(front) // (most // 2))]}
    for trial in reversed(trials):
        if len(chosen) >= most:
            break
        chosen.setdefault(trial.number, trial)
    return [trial for _, trial in sorted(chosen.items())]
