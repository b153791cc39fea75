"""A plan made to fit a budget, as near to what it was as it can be."""

from __future__ import annotations

from dataclasses import replace

from paredown.search.solver import Solver
from paredown.space.choice import KEEP, Choice
from paredown.space.layouts import site_layout
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site
from paredown.space.space import Space
from paredown.space.tensors import total_bytes

STEEPNESS = 3
"""A site's loss falls with this power of its bytes: 3 bits in place of 4 lose 2.4 times as much."""

CHANGED = 0.01
"""What other knobs cost beside their bytes, as a share of those of the plan's own."""

METHOD = 0.2
"""What another method costs, likewise: at the same bytes methods differ by that much."""

STRUCTURE = 8.0
"""What another structure costs (a drop, pruned neurons, or none of them), likewise."""

FLOOR = 8
"""What stores fewer bytes than this part of the plan's own is taken for that much."""


def repaired(space: Space, plan: Plan, budget_bytes: int) -> Plan:
    """The plan that is nearest to another and takes no more than so many bytes; bytes that are left are spent.

    Nearest is what loses least where the first plan was the best of its size (`implied_losses`): at its own bytes it comes back as it is.
    First only the methods that the plan uses and the structure that it has are offered, then all of the space.

    Raises:
        BudgetError: If nothing is that small.
    """
    near = Solver(nearby(space, plan))
    solver = near if near.smallest().size_bytes(space.inventory) <= budget_bytes else Solver(widened(space, plan))
    return solver.solve(implied_losses(solver.space, plan), budget_bytes)


def implied_losses(space: Space, plan: Plan) -> dict[tuple[str, Choice], float]:
    """Losses under which a plan is the best of its size, one for every choice of a space.

    Let the loss of a site fall with the third power of its bytes. The best plan is the one in which a byte brings as much at every site,
    so the loss of a site is in proportion to the bytes B that it has there, and b in their place change it by B ((B / b)^3 - 1). All
    these have the slope -3 at b = B and are convex: what one site gains on a byte, no other loses less.
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
    """What a choice costs beside its bytes; ``before`` is None at a site that was not decided on."""
    if before is None:
        return STRUCTURE
    if choice == before:
        return 0.0
    return CHANGED if signature(choice) == signature(before) else METHOD


def stored_bytes(site: Site, choice: Choice) -> int:
    """Bytes of a site under a choice; of a block that goes, less its norms."""
    return total_bytes(site_layout(site, choice)) - (total_bytes(site.rest) if site.kind == "block" else 0)


def signature(choice: Choice) -> tuple[str, ...]:
    """The methods of a choice, without their knobs."""
    return tuple(step.method for step in choice.steps)


def nearby(space: Space, plan: Plan) -> Space:
    """The space that a plan leaves where its structure stays: at each leaf what the plan has there, the options of those methods that it
    uses at leaves of that kind, and keeping it; what it overrules is kept."""
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
    """The space with what a plan takes, where that is not among its options."""
    decided = plan.decided(space.inventory)
    options = {**space.options, **{s.name: tuple(dict.fromkeys([c, *space.options[s.name]])) for s, c in decided}}
    return replace(space, options=options, max_drops=max(space.max_drops, plan.drops(space.inventory)))


def changed_sites(inventory: Inventory, plan: Plan, other: Plan) -> int:
    """At how many sites of the second plan the first decides otherwise."""
    return sum(plan[site.name] != choice for site, choice in other.decided(inventory))
