"""The plans that every study measures first."""

from __future__ import annotations

import numpy as np

from paredown.search.samplers import Proposal, Question
from paredown.space.errors import BudgetError


def seed_plans(question: Question, points: int = 8) -> list[Proposal]:
    """The solver's plans under the sensitivities as they are: at the budget, then along the whole front."""
    inventory = question.space.inventory
    smallest = question.solver.smallest().size_bytes(inventory)
    if question.budget_bytes < smallest:
        raise BudgetError(
            f"nothing meets the budget of {question.budget_bytes:,} bytes: the smallest plan of the space has {smallest:,}; "
            f"it was saved; raise the budget to {100 * smallest / inventory.original_bytes:.1f}% or offer smaller choices"
        )
    top = min(2 * question.budget_bytes, inventory.original_bytes)
    budgets = [question.budget_bytes, *np.geomspace(smallest, max(top, smallest), points).astype(int).tolist()]
    plans = question.solver.front(question.losses, [max(budget, smallest) for budget in budgets])
    return [
        Proposal(
            plan=plan,
            label="solver at the budget" if i == 0 else "solver along the front",
            predicted_loss=sum(question.losses[site.name, choice] for site, choice in plan.decided(inventory)),
        )
        for i, plan in enumerate(plans)
    ]
