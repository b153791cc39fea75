"""Estimator ``combined``: one measurement per linear site and one short backward sweep."""

from __future__ import annotations

from math import sqrt

from paredown.search.sensitivity.estimators import Estimator, estimators, fisher, inside, kept
from paredown.search.sensitivity.estimators.single_site import carried
from paredown.search.sensitivity.measurements import UNUSABLE, Evidence, Sensitivity

SEQUENCES, TOKENS = 1, 1024
"""Sequences that linear sites are measured alone on, and most tokens that are swept. On texts of 2,048 tokens the total
cost is about that of `single-site`."""


def combined(evidence: Evidence) -> Sensitivity:
    """Geometric mean of `single-site` on one sequence and `fisher` on few tokens, whose errors differ in kind.

    Pairs that `fisher` measures alone are measured here too. If the measured choice of a site makes the model unusable,
    there is no loss to carry to the site's other choices, and `fisher` alone predicts them.
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
