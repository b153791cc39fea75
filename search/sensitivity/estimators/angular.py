"""Estimator ``angular``: dropped blocks predicted from the angular distance between their input and output."""

from __future__ import annotations

from paredown.search.sensitivity.estimators import Estimator, estimators, kept
from paredown.search.sensitivity.estimators import single_site as alone
from paredown.search.sensitivity.measurements import Evidence, Pair, Sensitivity
from paredown.space.layouts import leaves_out
from paredown.space.space import Space


def drops(space: Space) -> list[Pair]:
    """Blocks with the choices that leave them out."""
    blocks = [site for site in space.inventory.parents if site.kind == "block"]
    return [(site, choice) for site in blocks for choice in space.options[site.name] if leaves_out(site, choice)]


def measured(space: Space) -> list[Pair]:
    """The pairs that `single-site` measures, with only the middle one of the block drops."""
    left_out = drops(space)
    others = set(left_out) - set(left_out[len(left_out) // 2 :][:1])
    return [pair for pair in alone.measured(space) if pair not in others]


def angular(evidence: Evidence) -> Sensitivity:
    """`single-site`, but with one block drop measured for all.

    The other drops lose in proportion to the squared angular distance between the block's input and output. Halves of
    blocks are measured, because their angles are not collected.

    Source:
        Gromov et al., 2024, "The Unreasonable Ineffectiveness of the Deeper Layers", arXiv 2403.17887, for the angle.
    """
    losses = evidence.losses_alone(measured(evidence.space))
    distances = evidence.distances
    known = [(site, choice) for site, choice in drops(evidence.space) if (site.name, choice) in losses]
    for site, choice in known[:1]:
        scale = losses[site.name, choice] / max(distances[site.block or 0] ** 2, 1e-30)
        losses |= {
            (other.name, drop): scale * distances[other.block or 0] ** 2 for other, drop in drops(evidence.space)
        }
    return kept(evidence.space) | alone.carried(evidence, losses)


estimators.register("angular")(Estimator(losses=angular, alone=measured))
