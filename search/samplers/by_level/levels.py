"""Choices of each site as ordered levels, fewest bytes first: the search space of samplers made for one technique."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from paredown.search.solver.solver import Losses
from paredown.space.choice import KEEP, Choice
from paredown.space.layouts import leaves_out, site_bytes
from paredown.space.plan import Plan
from paredown.space.site import Site
from paredown.space.space import Space

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Levels:
    """Plans as vectors of levels, one for each site: ``(sites,)`` or ``(plans, sites)``.

    Level 0 has the fewest bytes. The top level of a site that can overrule others is ``keep``: it overrules nothing. A
    choice dominated in bytes and predicted loss is not a level: it would stand between two levels, and no single step
    would lead from one to the other.

    Args:
        space: Sites and options.
        losses: Sensitivities.

    Attributes:
        sites: Sites with options, in the order of the model.
        top: Highest level of each site, ``(sites,)``.
        is_leaf: Whether a site is a leaf, which overrules nothing, ``(sites,)``.
        sizes: Bytes of each level, ``(sites, levels)``; 0 if the level overrules nothing, and beyond the top.
    """

    def __init__(self, space: Space, losses: Losses) -> None:
        self.space = space
        inventory = space.inventory
        self.sites = tuple(site for site in inventory.sites if space.options[site.name])
        self.choices = [_levels(space, site, losses) for site in self.sites]
        self.top = np.array([len(choices) - 1 for choices in self.choices])
        self.is_leaf = np.array([site.is_leaf for site in self.sites])
        self.sizes = np.zeros((len(self.sites), max(self.top, default=0) + 1), dtype=np.int64)
        self._left_out = np.zeros_like(self.sizes, dtype=bool)
        for place, (site, choices) in enumerate(zip(self.sites, self.choices, strict=True)):
            size = dict(zip(space.options[site.name], space.sizes(site), strict=True))
            for level, choice in enumerate(choices):
                if site.is_leaf or choice != KEEP:
                    self.sizes[place, level] = size[choice] - site.rest_bytes
                    self._left_out[place, level] = leaves_out(site, choice)
        self._fixed = inventory.rest_bytes
        self._is_block = np.array([site.kind == "block" for site in self.sites])
        self.covers = np.array([[_overrules(over, site) for site in self.sites] for over in self.sites]).reshape(
            len(self.sites), -1
        )
        self._rows = np.arange(len(self.sites))

    def plan(self, levels: Integers) -> Plan:
        """The plan of a vector."""
        chosen = {
            site.name: choices[level] for site, choices, level in zip(self.sites, self.choices, levels, strict=True)
        }
        return Plan.of(self.space.inventory, chosen)

    def vector(self, plan: Plan) -> Integers:
        """The vector of a plan.

        A choice that is not a level becomes the level nearest in bytes. An overruled leaf gets the mean relative height
        of the leaves that are not overruled.
        """
        decided = {site.name: (site, choice) for site, choice in plan.decided(self.space.inventory)}
        levels = self.top.copy()
        for place, site in enumerate(self.sites):
            if site.name not in decided:
                continue
            choice = decided[site.name][1]
            if choice in self.choices[place]:
                levels[place] = self.choices[place].index(choice)
            else:
                options = [option for option in self.choices[place] if site.is_leaf or option != KEEP]
                size = site_bytes(site, choice)
                levels[place] = int(np.argmin(np.abs(self.sizes[place, : len(options)] - size)))
        acts = self.is_leaf & (self.top > 0) & [site.name in decided for site in self.sites]
        height = float((levels[acts] / self.top[acts]).mean()) if acts.any() else 1.0
        for place, site in enumerate(self.sites):
            if site.is_leaf and site.name not in decided:
                levels[place] = round(height * self.top[place])
        return levels

    def decides(self, levels: Integers) -> Flags:
        """Whether each site's choice takes effect: not if another site overrules it, nor at an idle top; same shape."""
        overrules = ~self.is_leaf & (levels < self.top)
        below_blocks = ((overrules & self._is_block).astype(np.float32) @ self.covers.astype(np.float32)) > 0
        overrules &= ~below_blocks
        overruled = (overrules.astype(np.float32) @ self.covers.astype(np.float32)) > 0
        return np.where(self.is_leaf, ~overruled, overrules)

    def bytes_of(self, levels: Integers) -> Any:
        """Bytes that ``apply`` writes for the plan of each vector, ``(plans,)``; a scalar for a single vector."""
        return self._fixed + (self.sizes[self._rows, levels] * self.decides(levels)).sum(-1)

    def drops(self, levels: Integers) -> Any:
        """Number of sites that the plan of each vector drops, ``(plans,)``; a scalar for a single vector."""
        return (self._left_out[self._rows, levels] & self.decides(levels)).sum(-1)

    def canonical(self, levels: Integers) -> Integers:
        """Canonical form of vectors that encode the same plan; same shape.

        Overruled leaves stand at their middle level, idle sites above them at their top.
        """
        idle = np.where(self.is_leaf, self.top // 2, self.top)
        return np.where(self.decides(levels), levels, idle)

    def allowed(self, levels: Integers) -> Integers:
        """The vector with at most ``max_drops`` drops; excess drops are undone, the last one first. Not modified."""
        levels = levels.copy()
        while self.drops(levels) > self.space.max_drops:
            last = np.flatnonzero(self._left_out[self._rows, levels] & self.decides(levels))[-1]
            levels[last] = self.top[last]
        return levels


def _levels(space: Space, site: Site, losses: Losses) -> list[Choice]:
    """The undominated options of a site, fewest bytes first; followed by ``keep`` if the site is not a leaf."""
    kept: list[Choice] = []
    least = np.inf
    options = sorted(
        zip(
            space.sizes(site),
            (losses[site.name, choice] for choice in space.options[site.name]),
            space.options[site.name],
            strict=True,
        ),
        key=lambda option: option[:2],
    )
    for _, loss, choice in options:
        if loss < least:
            kept.append(choice)
            least = loss
    return kept if site.is_leaf else [*kept, KEEP]


def _overrules(over: Site, site: Site) -> bool:
    """Whether a site that is not kept overrules another."""
    if over.is_leaf or over is site:
        return False
    if site.is_leaf:
        return site.name in over.covers
    return over.kind == "block" and site.kind != "block" and any(leaf in over.covers for leaf in site.covers)
