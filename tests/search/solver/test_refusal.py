"""A budget that nothing meets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.search.solver.refusal import refusal
from paredown.search.solver.solver import Solver
from paredown.search.study.impossible_budget import refuse_impossible
from paredown.space.budget import Budget
from paredown.space.errors import BudgetError
from paredown.space.plan_file import BaseModelReference, PlanFile
from shared import toys


def test_the_smallest_plan_is_kept_where_nothing_meets_the_budget(tmp_path: Path) -> None:
    """At its own bytes it passes, and nothing is written; at a byte less it is on disk, and the message says where."""
    solver, path = Solver(toys.toy_space()), tmp_path / "best" / "plan.yaml"
    inventory = solver.space.inventory
    smallest = solver.smallest().size_bytes(inventory)
    reference = BaseModelReference(
        name="toy", architecture="Toy", config_sha256="00", shapes_sha256=inventory.shapes_sha256()
    )
    refuse_impossible(solver, smallest, reference, path)
    assert not path.exists()
    with pytest.raises(BudgetError, match=re.escape(f"has {smallest:,}; it was saved to {path}; raise the budget to")):
        refuse_impossible(solver, smallest - 1, reference, path)
    assert PlanFile.read(path).size_bytes == smallest


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_the_remedy_helps(one: int, other: int) -> None:
    """The advised budget has room for the smallest plan, and at most a thousandth of the original beside it."""
    smallest, original = sorted((one, other))
    said = str(refusal(smallest - 1, smallest, original, ["pins"]))
    advised = re.search(r"; raise the budget to ([\d.]+%) or offer smaller choices \(pins\)$", said)
    assert advised
    assert smallest <= Budget.parse(advised[1]).bytes_of(original, 1) <= smallest + original / 1000 + 1
