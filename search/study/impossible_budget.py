"""A budget that no plan meets: the smallest plan is written, and the budget refused."""

from __future__ import annotations

from pathlib import Path

from paredown.search.outcome.plan_files import plan_file
from paredown.search.solver.refusal import refusal
from paredown.search.solver.solver import Solver
from paredown.space.plan_file import BaseModelReference


def refuse_impossible(solver: Solver, budget_bytes: int, reference: BaseModelReference, path: Path) -> None:
    """Accepts a budget that some plan of the space meets; otherwise writes the smallest plan.

    Raises:
        BudgetError: If no plan is that small.
    """
    space, smallest = solver.space, solver.smallest()
    size = smallest.size_bytes(space.inventory)
    if size > budget_bytes:
        plan_file(smallest, reference, space.target.name, size).write(path)
        raise refusal(budget_bytes, size, space.inventory.original_bytes, space.refusals(), path)
