"""Additivity check: losses predicted by summed sensitivities against measured losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paredown.evaluators.metrics import usual_metric
from paredown.search.outcome.inventory_file import read_inventory
from paredown.search.outcome.outcome import Outcome
from paredown.search.pareto import lower_left
from paredown.search.report.rendering import Section
from paredown.search.sensitivity.stored import SENSITIVITY, read_losses, read_sensitivity
from paredown.search.trial import Trial
from paredown.space.choice import KEEP
from paredown.space.errors import StudyError

POINTS = 6
"""Most plans of the front in the report's table."""

FEWEST = 4
"""Fewest distinct losses that a rank correlation is computed from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Additivity:
    """Measured plans whose choices all have a sensitivity.

    Attributes:
        estimator: Name of the sensitivity estimator; empty if unknown.
        tokens: Tokens that the estimator read forward and backward, in passes of the whole model.
        plans: Each trial with the sum of its plan's sensitivities.
    """

    estimator: str
    tokens: tuple[int, int]
    plans: Sequence[tuple[Trial, float]]

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's correlation of predicted and measured losses; None if there are too few distinct losses."""
        predicted, measured = [loss for _, loss in self.plans], [trial.loss for trial, _ in self.plans]
        if min(len(set(predicted)), len(set(measured))) < FEWEST:
            return None
        from scipy.stats import spearmanr

        return float(spearmanr(predicted, measured).statistic)

    @property
    def along_front(self) -> list[tuple[Trial, float]]:
        """At most `POINTS` plans of the size-loss Pareto front, spread evenly in log bytes, smallest first.

        Plans with a predicted loss of zero are left out.
        """
        told = [(trial, loss) for trial, loss in self.plans if loss > 0]
        front = [told[i] for i in lower_left([(trial.size_bytes, trial.loss) for trial, _ in told])]
        if len(front) <= POINTS:
            return front
        sizes = np.log([trial.size_bytes for trial, _ in front])
        nearest = [int(np.abs(sizes - size).argmin()) for size in np.linspace(sizes[0], sizes[-1], POINTS)]
        return [front[i] for i in sorted(set(nearest))]


def additivity(outcome: Outcome, folder: Path) -> Additivity | None:
    """The additivity check of a study folder; None without sensitivities in the metric of the trials."""
    if outcome.question.metric != usual_metric(outcome.question.metric):
        return None
    try:
        inventory = read_inventory(folder)
        stored = read_sensitivity(folder / SENSITIVITY)
    except StudyError:
        return None
    losses = read_losses(stored)
    plans = []
    for trial in outcome.trials.measured:
        pairs = [(site.name, choice) for site, choice in trial.plan.decided(inventory)]
        if all(pair in losses or pair[1] == KEEP for pair in pairs):
            plans.append((trial, sum(losses.get(pair, 0.0) for pair in pairs)))
    tokens = (stored.forward_tokens, stored.backward_tokens)
    return Additivity(estimator=stored.estimator, tokens=tokens, plans=plans)


def additivity_section(outcome: Outcome, folder: Path) -> Section:
    """The report's section on additivity; empty if no measured plan has a predicted loss."""
    title, found = "Do losses add up?", additivity(outcome, folder)
    if found is None or not found.along_front:
        return Section(title=title)
    forward, backward = found.tokens
    cost = (
        f", which read {forward:,} tokens forward" + (f" and {backward:,} backward" if backward else "")
        if forward
        else ""
    )
    name = f"The sensitivities ({found.estimator}{cost})" if found.estimator else "The sensitivities"
    correlation = found.rank_correlation
    ranked = (
        f" rank the {len(found.plans)} plans that they predict with Spearman's correlation {correlation:.3f}."
        if correlation
        else ""
    )
    told = (
        "The predicted loss of a plan is the sum of its choices' sensitivities. Where measured / predicted is near 1, "
        "losses add up. Far above or below 1, choices interact, and only measuring whole plans finds the best."
    )
    rows = [
        [
            f"{trial.number}",
            f"{trial.size_bytes:,}",
            f"{100 * trial.size_bytes / outcome.question.original_bytes:.1f} %",
            f"{predicted:.4g}",
            f"{trial.loss:.4g}",
            f"{trial.loss / predicted:.2f}",
        ]
        for trial, predicted in found.along_front
    ]
    head = ["trial", "bytes", "of the original", "predicted", "measured", "measured / predicted"]
    return Section(title=title, paragraphs=[name + ranked, told] if ranked else [told], table=(head, rows))
