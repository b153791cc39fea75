"""Estimator ``single-site``: one measurement per linear site, carried to its other choices."""

from __future__ import annotations

from paredown.search.sensitivity.estimators import Estimator, estimators, kept, pairs_of, references
from paredown.search.sensitivity.measurements import Evidence, Pair, Sensitivity
from paredown.space.choice import KEEP
from paredown.space.space import Space


def measured(space: Space) -> list[Pair]:
    """Each linear site at its reference choice, and every choice of the other sites.

    Output error says little about the loss of embeddings (which also make the logits), feed-forward networks,
    attentions and blocks.
    """
    return references(space) + [(site, choice) for site, choice in pairs_of(space) if site.kind != "linear"]


def carried(evidence: Evidence, losses: Sensitivity) -> Sensitivity:
    """The losses, completed for the other choices of their linear sites in proportion to the output error."""
    found = dict(losses)
    for site, choice in references(evidence.space):
        if (site.name, choice) not in losses:
            continue
        scale = losses[site.name, choice] / max(evidence.output_error(site, choice), 1e-30)
        others = [other for other in evidence.space.options[site.name] if other != KEEP]
        found |= {(site.name, other): scale * evidence.output_error(site, other) for other in others}
    return found


def single_site(evidence: Evidence) -> Sensitivity:
    """Loss of each linear site at one choice, carried to its other choices by the ratio of output errors."""
    return kept(evidence.space) | carried(evidence, evidence.losses_alone(measured(evidence.space)))


estimators.register("single-site")(Estimator(losses=single_site, alone=measured))
