"""One measurement a linear site and one short backward sweep, together."""

from __future__ import annotations

from math import sqrt

from paredown.search.estimators import Estimator, estimators, fisher, kept, references
from paredown.search.estimators.single_site import carried
from paredown.search.evidence import Evidence, Pair, Sensitivity
from paredown.space.space import Space

SEQUENCES = 1
TOKENS = 1024


def inside(space: Space) -> list[Pair]:
    """Linear sites inside blocks, with their reference."""
    return [(site, choice) for site, choice in references(space) if site.block is not None]


def combined(evidence: Evidence) -> Sensitivity:
    """The geometric mean of `single-site`, on one sequence, and of `fisher`, on few tokens: they err in different ways.

    What `fisher` measures alone is measured as there.
    """
    alone = carried(evidence, evidence.losses_alone(inside(evidence.space), SEQUENCES))
    scores = fisher.scored(evidence, evidence.texts.within(TOKENS))
    together = {pair: sqrt(alone[pair] * score) for pair, score in scores.items()}
    return kept(evidence.space) | together | evidence.losses_alone(fisher.measured(evidence.space))


estimators.register("combined")(
    Estimator(
        losses=combined,
        alone=lambda space: inside(space) + fisher.measured(space),
        sweeps=lambda space: 1,
        sequences=SEQUENCES,
        tokens=TOKENS,
    )
)
