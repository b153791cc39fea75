"""Seed plans: what every study measures first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paredown.search.samplers import Problem, Proposal
from paredown.search.trials.uniform import UniformPlan

POINTS = 5
"""Number of budgets along the front."""

SPACING = 1.06
"""Least ratio of consecutive budgets along the front."""


def seed_plans(problem: Problem, sizes: Sequence[int] = ()) -> list[Proposal]:
    """The solver's plans under the sensitivities: at the budget, then along the whole front.

    Args:
        problem: Space, losses and budget.
        sizes: Bytes of the plans to compare with; the solver solves at these sizes too.

    Raises:
        BudgetError: If no plan meets the budget.
    """
    inventory = problem.space.inventory
    smallest = problem.solver.smallest().size_bytes(inventory)
    top = min(2 * problem.budget_bytes, inventory.original_bytes)
    wanted = sorted([*sizes, *np.geomspace(smallest, max(top, smallest), POINTS).astype(int).tolist()])
    budgets = [problem.budget_bytes]
    for budget in wanted:
        if budget >= smallest and (len(budgets) == 1 or budget > SPACING * budgets[-1]):
            budgets.append(budget)
    plans = problem.solver.front(problem.losses, budgets)
    return [
        Proposal(
            plan=plan,
            label="solver at the budget" if i == 0 else "solver along the front",
            predicted_loss=sum(problem.losses[site.name, choice] for site, choice in plan.decided(inventory)),
        )
        for i, plan in enumerate(plans)
    ]


def first_plans(
    solved: Sequence[Proposal], uniform: Sequence[UniformPlan], budget_bytes: int
) -> list[tuple[str, Proposal]]:
    """The plans that every study measures first, each with its origin.

    The solver's plan for the budget comes first, then the uniform plans, then the solver's plans along the front.
    Uniform plans within the budget precede the larger ones, so that even a short run has a comparison.
    """
    ordered = sorted(uniform, key=lambda plan: plan.size_bytes > budget_bytes)
    baselines = [("uniform", Proposal(plan=plan.plan, label=plan.label)) for plan in ordered]
    seeds = [("solver", proposal) for proposal in solved]
    return [*seeds[:1], *baselines, *seeds[1:]]
