"""What every choice is predicted to lose: one file an estimator; a new one is found by being here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paredown.search.evidence import SEQUENCES, Evidence, Pair, Sensitivity
from paredown.space.choice import KEEP, Choice
from paredown.space.registry import Registry, import_folder
from paredown.space.site import Site
from paredown.space.space import Space

REFERENCE_BITS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """Predicts the loss of each choice at each site, with everything else kept.

    Attributes:
        losses: Of every (site, choice) of the space; zero where a site is kept.
        alone: The pairs that it measures, each alone: what it will cost.
        sweeps: How often it also sweeps the texts backward.
        sequences: Of the texts, whose beginnings linear sites inside blocks are measured on alone.
        tokens: Of the texts, that it sweeps at most.
        projected: Pairs whose change of the weights is multiplied with the inputs of every swept token.
    """

    losses: Callable[[Evidence], Sensitivity]
    alone: Callable[[Space], Sequence[Pair]]
    sweeps: Callable[[Space], int] = lambda space: 0
    sequences: int = SEQUENCES
    tokens: float = math.inf
    projected: Callable[[Space], Sequence[Pair]] = lambda space: ()


estimators: Registry[Estimator] = Registry("sensitivity")


def pairs_of(space: Space) -> list[Pair]:
    """Every site with every choice that does something there."""
    return [(site, choice) for site in space.inventory.sites for choice in space.options[site.name] if choice != KEEP]


def is_swept(site: Site) -> bool:
    """Whether a gradient tells what a change of a site's weights does: it is a change of the outputs of layers inside a block."""
    return site.kind == "linear" and site.block is not None


def kept(space: Space) -> Sensitivity:
    """The loss of the sites that are kept: none."""
    return {(site.name, KEEP): 0.0 for site in space.inventory.sites if KEEP in space.options[site.name]}


def reference(site: Site, space: Space) -> Choice | None:
    """The choice that stands for all of a linear site: the nearest to 3 bits; None where nothing is to choose."""
    options = [choice for choice in space.options[site.name] if choice != KEEP]
    return min(
        options,
        key=lambda c: (abs(getattr(c, "bits", 16) - REFERENCE_BITS), c.method != "quantize", str(c)),
        default=None,
    )


def references(space: Space) -> list[Pair]:
    """Linear sites with their reference."""
    linear = [site for site in space.inventory.leaves if site.kind == "linear"]
    return [(site, choice) for site in linear if (choice := reference(site, space)) is not None]


def inside(space: Space) -> list[Pair]:
    """Linear sites inside blocks with their reference."""
    return [(site, choice) for site, choice in references(space) if is_swept(site)]


import_folder(__name__, list(__path__))
