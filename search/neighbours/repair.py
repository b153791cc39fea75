"""Repair of a plan: the nearest plan that meets a budget."""

from __future__ import annotations

from dataclasses import replace

from paredown.search.solver.solver import Solver
from paredown.space.choice import KEEP, Choice
from paredown.space.layouts import stored_bytes
from paredown.space.plan import Plan
from paredown.space.site import Inventory
from paredown.space.space import Space

STEEPNESS = 3
"""Exponent of the loss model: a site's loss falls with this power of its bytes. 3 bits lose 2.4 times as much as 4."""

CHANGED = 0.01
"""Penalty for different knobs of the same methods, as a share of the site's own bytes."""

METHOD = 0.2
"""Penalty for a different method, likewise: methods differ by about that much at equal bytes."""

STRUCTURE = 8.0
"""Penalty for a different structure (a drop, pruned neurons, or undoing one), likewise."""

FLOOR = 8
"""Most that a choice can save in the model: fewer bytes than 1/FLOOR of the site's own count as 1/FLOOR of them."""


def repaired(space: Space, plan: Plan, budget_bytes: int) -> Plan:
    """The nearest plan to ``plan`` within a byte budget; spare bytes are spent.

    Nearest means least loss under `implied_losses`, under which the given plan is the best of its size: at its own size
    it is returned unchanged. The plan's own methods and structure are tried first, then the whole space.

    Raises:
        BudgetError: If no plan is that small.
    """
    near = Solver(nearby(space, plan))
    solver = near if near.smallest().size_bytes(space.inventory) <= budget_bytes else Solver(widened(space, plan))
    return solver.solve(implied_losses(solver.space, plan), budget_bytes)


def implied_losses(space: Space, plan: Plan) -> dict[tuple[str, Choice], float]:
    """Losses under which a plan is the best of its size: one for every (site, choice) of a space.

    A site's loss is modelled as the inverse third power of its bytes. In the best plan the marginal loss per byte is
    equal at every site, so a site's loss is proportional to its own bytes B, and b bytes instead change it by
    B ((B / b)^3 - 1). These curves are convex and all have slope -3 at b = B: no exchange of bytes between two sites
    reduces the sum.
    """
    inventory = space.inventory
    decided = {site.name: choice for site, choice in plan.decided(inventory)}
    owns = {site.name: stored_bytes(site, choice) for site, choice in plan.decided(inventory)}
    weights = {site.name: sum(member.parameters for member in site.members) for site in inventory.leaves}
    mean = sum(owns.values()) / max(sum(weights.values()), 1)
    usual = {name: owns.get(name, weight * mean) for name, weight in weights.items()}
    for parent in (site for site in inventory.parents if site.name in decided):
        density = max(mean, owns[parent.name] / sum(weights[leaf] for leaf in parent.covers))
        usual |= {leaf: weights[leaf] * density for leaf in parent.covers}
    losses = {}
    for site in inventory.sites:
        usually = sum(usual[leaf] for leaf in site.covers or (site.name,))
        own = max(owns.get(site.name, usually), 0.0)
        for choice in space.options[site.name]:
            size = max(float(stored_bytes(site, choice)), own / FLOOR)
            loss = own * ((own / size) ** STEEPNESS - 1) if own else 0.0
            losses[site.name, choice] = loss + max(own, usually) * _strangeness(choice, decided.get(site.name))
    return losses


def _strangeness(choice: Choice, before: Choice | None) -> float:
    """Penalty of a choice beside its bytes; ``before`` is None at a site that the plan does not decide."""
    if before is None:
        return STRUCTURE
    if choice == before:
        return 0.0
    return CHANGED if signature(choice) == signature(before) else METHOD


def signature(choice: Choice) -> tuple[str, ...]:
    """Names of a choice's methods, without knobs."""
    return tuple(step.method for step in choice.steps)


def nearby(space: Space, plan: Plan) -> Space:
    """The space around a plan with its structure fixed.

    A leaf offers the plan's own choice, its options with methods that the plan uses at leaves of that kind, and KEEP.
    Leaves that the plan overrules are kept.
    """
    decided = {site.name: choice for site, choice in plan.decided(space.inventory)}
    used: dict[str, set[tuple[str, ...]]] = {}
    for site, choice in plan.decided(space.inventory):
        used.setdefault(site.kind, set()).add(signature(choice))
    options: dict[str, tuple[Choice, ...]] = {}
    for site in space.inventory.sites:
        offered = space.options[site.name]
        if site.name not in decided:
            options[site.name] = (KEEP,) if site.is_leaf else ()
            continue
        own = decided[site.name]
        alike = used[site.kind] | {signature(KEEP)} if site.is_leaf else {signature(own)}
        pinned = site.is_leaf and len(offered) == 1
        options[site.name] = tuple(dict.fromkeys([own, *(o for o in offered if signature(o) in alike and not pinned)]))
    return replace(space, options=options, max_drops=plan.drops(space.inventory))


def widened(space: Space, plan: Plan) -> Space:
    """The space with the plan's own choices added to its options."""
    decided = plan.decided(space.inventory)
    options = {**space.options, **{s.name: tuple(dict.fromkeys([c, *space.options[s.name]])) for s, c in decided}}
    return replace(space, options=options, max_drops=max(space.max_drops, plan.drops(space.inventory)))


def changed_sites(inventory: Inventory, plan: Plan, other: Plan) -> int:
    """Number of sites decided by ``other`` at which ``plan`` has another choice."""
    return sum(plan[site.name] != choice for site, choice in other.decided(inventory))
