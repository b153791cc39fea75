"""Plans made to fit a budget."""

from __future__ import annotations

import numpy as np
import pytest

from paredown.search.neighbours.repair import implied_losses, nearby, repaired, widened
from paredown.search.solver.solver import Solver
from paredown.space.choice import KEEP, parse_choice
from paredown.space.errors import BudgetError
from paredown.space.layouts import stored_bytes
from paredown.space.plan import Plan
from shared import toys

SPACE = toys.toy_space(blocks=2)
PLANS = toys.all_plans(SPACE)
BITS = [f"quantize bits={bits}" for bits in (4, 5, 6, 8)]
FINER = toys.toy_space(blocks=1, max_drops=0, choices={"linear": BITS, "embedding": BITS, "ffn": [], "block": []})
FINE = toys.all_plans(FINER)
SIZES = np.array([plan.size_bytes(SPACE.inventory) for plan in PLANS])


@pytest.mark.parametrize("place", [*range(5, len(PLANS), len(PLANS) // 3), *range(-1, -len(FINE), -len(FINE) // 12)])
def test_a_plan_is_the_best_of_its_size_under_the_losses_that_it_implies(place: int) -> None:
    """No plan of at most these bytes loses less, whatever its structure; at its own bytes a plan comes back."""
    space, plans = (SPACE, PLANS) if place >= 0 else (FINER, FINE)
    plan, sizes = plans[place], np.array([each.size_bytes(space.inventory) for each in plans])
    losses = implied_losses(widened(space, plan), plan)
    sums = np.array([toys.sum_of(space, other, losses) for other in plans])
    assert sums[place] == pytest.approx(0.0, abs=1e-9)
    others = (sizes[place] >= sizes) & (np.arange(len(plans)) != place % len(plans))
    assert (sums[others] > 0).all()
    assert repaired(space, plan, int(sizes[place])) == plan
    near = np.array([nearby(space, plan).allows(other) for other in plans])
    for budget in (int(share * sizes[place]) for share in (0.5, 0.7, 0.9, 1.2, 2.0)):
        fitting = budget >= sizes
        if fitting.any():
            found = repaired(space, plan, budget)
            assert fitting[plans.index(found)]
            best = sums[fitting & near].min() if (fitting & near).any() else sums[fitting].min()
            assert sums[plans.index(found)] == pytest.approx(best)


def test_structure_stays_while_the_budget_allows_it() -> None:
    """A network that was pruned stays so and no other is, until nothing else is small enough."""
    inventory = SPACE.inventory
    plan = Plan.of(
        inventory, {s.name: parse_choice(f"quantize bits={4 if s.kind == 'linear' else 8}") for s in inventory.leaves}
    )
    smallest = Solver(nearby(SPACE, plan)).smallest().size_bytes(inventory)
    assert not any(repaired(SPACE, plan, smallest)[site.name] != parse_choice("keep") for site in inventory.parents)
    beyond = repaired(SPACE, plan, smallest - 1)
    assert beyond.size_bytes(inventory) < smallest
    assert sum(beyond[site.name] != parse_choice("keep") for site in inventory.parents) == 1
    with pytest.raises(BudgetError, match="nothing meets the budget"):
        repaired(SPACE, plan, int(SIZES.min()) - 1)


def test_what_changes_cost() -> None:
    """Half of a site's bytes cost seven times as much, plus what is spent on strangeness; a new drop costs far more."""
    inventory = SPACE.inventory
    plan = Plan.of(
        inventory, {s.name: parse_choice("quantize bits=4" if s.kind == "linear" else "keep") for s in inventory.leaves}
    )
    losses = implied_losses(SPACE, plan)
    for name, rows, columns in (("layers.0.up", 64, 32), ("layers.1.attention", 32, 32)):
        own, less = (rows * (columns * bits // 8 + 2) + 16 + 2 * (name.endswith("attention") * rows) for bits in (4, 2))
        assert losses[name, parse_choice("quantize bits=2")] == pytest.approx(
            own * ((own / less) ** 3 - 1) + 0.01 * own
        )
        assert losses[name, KEEP] == pytest.approx(
            own * ((own / (2 * rows * columns + 2 * (name.endswith("attention") * rows))) ** 3 - 0.8)
        )
    owns = sum(stored_bytes(inventory[leaf], plan[leaf]) for leaf in inventory["layers.0"].covers)
    assert losses["layers.0", parse_choice("drop")] == pytest.approx((8**3 - 1 + 8) * owns)
    dropped = Plan.of(inventory, {"layers.1": parse_choice("drop")})
    assert nearby(SPACE, dropped).allows(dropped)
