"""Sensitivity estimators, one file each; every file in this folder is imported, which registers its estimator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paredown.search.sensitivity.measurements import SEQUENCES, Evidence, Pair, Sensitivity
from paredown.space.choice import KEEP, Choice
from paredown.space.site import Site
from paredown.space.space import Space
from paredown.space.system.registry import Registry, import_folder

REFERENCE_BITS = 3
"""Bit-width that the reference choice of a linear site is nearest to [bits]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """Predicts the loss of each choice at each site, with everything else kept.

    Attributes:
        losses: Predicts the loss of every (site, choice) of a space; zero where a site is kept.
        alone: Lists the pairs that it measures one at a time, for the cost estimate.
        sweeps: Number of backward sweeps over the texts.
        sequences: Number of sequences whose beginnings single linear sites inside blocks are measured on.
        tokens: Most tokens that it sweeps.
        projected: Pairs whose weight change is multiplied with the inputs of every swept token.
    """

    losses: Callable[[Evidence], Sensitivity]
    alone: Callable[[Space], Sequence[Pair]]
    sweeps: Callable[[Space], int] = lambda space: 0
    sequences: int = SEQUENCES
    tokens: float = math.inf
    projected: Callable[[Space], Sequence[Pair]] = lambda space: ()


estimators: Registry[Estimator] = Registry("sensitivity", group="paredown.estimators", entry=Estimator)


def pairs_of(space: Space) -> list[Pair]:
    """Every (site, choice) except KEEP."""
    return [(site, choice) for site in space.inventory.sites for choice in space.options[site.name] if choice != KEEP]


def is_swept(site: Site) -> bool:
    """Whether a gradient predicts the effect of a site's weights: true for linear sites inside blocks."""
    return site.kind == "linear" and site.block is not None


def kept(space: Space) -> Sensitivity:
    """Zero loss for each site that may be kept."""
    return {(site.name, KEEP): 0.0 for site in space.inventory.sites if KEEP in space.options[site.name]}


def reference(site: Site, space: Space) -> Choice | None:
    """Reference choice of a linear site, the one nearest to 3 bits; None if the site can only be kept."""
    options = [choice for choice in space.options[site.name] if choice != KEEP]
    return min(
        options,
        key=lambda c: (abs(getattr(c, "bits", 16) - REFERENCE_BITS), c.method != "quantize", str(c)),
        default=None,
    )


def references(space: Space) -> list[Pair]:
    """Linear sites with their reference choice."""
    linear = [site for site in space.inventory.leaves if site.kind == "linear"]
    return [(site, choice) for site in linear if (choice := reference(site, space)) is not None]


def inside(space: Space) -> list[Pair]:
    """Linear sites inside blocks with their reference choice."""
    return [(site, choice) for site, choice in references(space) if is_swept(site)]


import_folder(__name__, list(__path__))
