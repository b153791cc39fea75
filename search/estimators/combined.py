"""One measurement a linear site and one short backward sweep, together."""

from __future__ import annotations

from math import sqrt

from paredown.search.estimators import Estimator, estimators, fisher, inside, kept
from paredown.search.estimators.single_site import carried
from paredown.search.evidence import UNUSABLE, Evidence, Sensitivity

SEQUENCES, TOKENS = 1, 1024
"""Sequences that linear sites are measured alone on, and tokens that are swept at most: on texts of 2,048 tokens both together cost about
what `single-site` does."""


def combined(evidence: Evidence) -> Sensitivity:
    """The geometric mean of `single-site`, on one sequence, and of `fisher`, on few tokens: they err in different ways.

    What `fisher` measures alone is measured as there. Where the measured choice makes the model unusable, nothing can be carried
    from it to the others: `fisher` alone counts.
    """
    scores = fisher.scored(evidence, evidence.texts.within(TOKENS))
    measured = evidence.losses_alone(inside(evidence.space), SEQUENCES)
    unusable = {pair: loss for pair, loss in measured.items() if loss >= UNUSABLE}
    alone = carried(evidence, {pair: loss for pair, loss in measured.items() if pair not in unusable})
    together = {pair: sqrt(alone[pair] * score) if pair in alone else score for pair, score in scores.items()}
    return kept(evidence.space) | together | unusable | evidence.losses_alone(fisher.measured(evidence.space))


estimators.register("combined")(
    Estimator(
        losses=combined,
        alone=lambda space: inside(space) + fisher.measured(space),
        sweeps=lambda space: 1,
        sequences=SEQUENCES,
        tokens=TOKENS,
        projected=fisher.swept,
    )
)
