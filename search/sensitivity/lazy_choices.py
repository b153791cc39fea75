"""Lazy filling of the bank: only the calibrated choices near the predicted front are compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from paredown.search.solver.solver import Solver
from paredown.space.choice import Choice
from paredown.space.layouts import site_bytes, site_fault
from paredown.space.plan import Plan
from paredown.space.site import Site
from paredown.space.space import Space
from paredown.space.study_file import StudyFile

LARGE_PARAMETERS = 10**9
"""Number of parameters above which compressing every calibrated choice takes too much time and disk."""

LOWEST, HIGHEST, POINTS = 0.7, 1.4, 9
"""Range of budgets that the front is solved for, as factors of the study's budget; number of budgets."""


def is_lazy(study_file: StudyFile, space: Space) -> bool:
    """Whether a study fills its bank lazily."""
    large = space.inventory.parameters > LARGE_PARAMETERS
    return study_file.bank == "lazy" or (study_file.bank == "auto" and large)


def data_free(space: Space) -> Space:
    """The space with each choice replaced by its data-free sibling; a leaf without data-free siblings is unchanged."""
    options = {}
    for site in space.inventory.sites:
        siblings = [choice.data_free for choice in space.options[site.name]]
        free = tuple(dict.fromkeys(c for c in siblings if c is not None and site_fault(site, c, space.target) is None))
        options[site.name] = free or (space.options[site.name] if site.is_leaf else ())
    return replace(space, options=options)


def narrowed(space: Space, free: Space, losses: Mapping[tuple[str, Choice], float], budget_bytes: int) -> Space:
    """The space without calibrated choices far from the front around the budget.

    At each site, the calibrated choices stay whose bytes lie within the range that the front spends there, and one
    neighbour on each side. All choices that need no statistics stay.

    Args:
        space: The full space.
        free: Its data-free siblings (`data_free`).
        losses: Sensitivity of every (site, choice) of ``free``.
        budget_bytes: Budget around which the front is solved [bytes].
    """
    inventory, solver = space.inventory, Solver(free)
    smallest = solver.smallest().size_bytes(inventory)
    if smallest > budget_bytes:  # only choices without a data-free sibling fit the budget
        return space
    most = max(smallest, min(int(HIGHEST * budget_bytes), inventory.original_bytes))
    budgets = np.linspace(max(smallest, int(LOWEST * budget_bytes)), most, POINTS).astype(int).tolist()
    plans = solver.front(losses, [*budgets, budget_bytes])
    options = {}
    for site in inventory.sites:
        spent = [size for plan in plans if (size := _spent(site, plan, space)) is not None]
        near = _near(site, space, spent)
        stay = tuple(c for c in space.options[site.name] if not c.needs or site_bytes(site, c) in near)
        options[site.name] = stay or space.options[site.name] if site.is_leaf else stay
    return replace(space, options=options)


def _near(site: Site, space: Space, spent: list[int]) -> set[int]:
    """Sizes of a site's calibrated choices within the range that the front spends, and one below and above it."""
    if not spent:
        return set()
    sizes = sorted({site_bytes(site, choice) for choice in space.options[site.name] if choice.needs})
    below, above = [size for size in sizes if size < min(spent)], [size for size in sizes if size > max(spent)]
    return {size for size in sizes if min(spent) <= size <= max(spent)} | set(below[-1:]) | set(above[:1])


def _spent(site: Site, plan: Plan, space: Space) -> int | None:
    """Bytes of a site, or of the leaves that it covers, under a plan; None if another site overrules them."""
    decided = {other.name: site_bytes(other, choice) for other, choice in plan.decided(space.inventory)}
    names = [site.name] if site.name in decided else site.covers
    return sum(decided[name] for name in names) if names and all(name in decided for name in names) else None
