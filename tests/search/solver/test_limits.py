"""Budgets beside the bytes: the solver keeps to them, and says which one cannot be met."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paredown
from paredown.evaluators import timing
from paredown.evaluators.latency import LatencyTable, deployed_plan
from paredown.search.finalists.finalists import Finalists
from paredown.search.report.verdict import price_words
from paredown.search.solver.limits import Limit, decode_limit
from paredown.search.solver.solver import Solver
from paredown.search.trial import Expectation, Times
from paredown.search.workbench.survey import survey
from paredown.space.choice import KEEP, parse_choice
from paredown.space.errors import BudgetError, EvaluationError, StudyError
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import StudyFile
from paredown.space.targets.target import targets
from shared import toys
from shared.made_study import changed, outcome_of

SPACE = toys.toy_space(max_drops=1)
FREE = Solver(SPACE)
PLANS = toys.all_plans(SPACE)
SIZES = np.array([plan.size_bytes(SPACE.inventory) for plan in PLANS])
numbers = st.lists(st.sampled_from([0, 0, 1, 2, 3, 50]), min_size=len(FREE.variables), max_size=len(FREE.variables))
shares = st.floats(0, 1)
OUTCOME = outcome_of((), budget_bytes=int(SIZES.max()))


def limit_of(values: list[int], most: float, name: str = "kv_bytes_per_token", fixed: float = 0.0) -> Limit:
    return Limit(
        name=name, most=most, costs={v: float(x) for v, x in zip(FREE.variables, values, strict=True)}, fixed=fixed
    )


def totals(values: list[int]) -> np.ndarray:
    costs = {variable: float(value) for variable, value in zip(FREE.variables, values, strict=True)}
    return np.array([toys.sum_of(SPACE, plan, costs) for plan in PLANS])


def between(values: np.ndarray, share: float) -> int:
    return int(values.min() + share * (values.max() - values.min()))


@settings(max_examples=25)
@given(numbers, shares)
def test_a_limit_that_binds_nothing_changes_nothing(values: list[int], share: float) -> None:
    """Two paths, one answer: the knapsack and the integer program."""
    losses = {variable: float(value) for variable, value in zip(FREE.variables, values, strict=True)}
    budget = between(SIZES, share)
    program = Solver(SPACE, limits=[limit_of([1] * len(values), 1e6)])
    found = [toys.sum_of(SPACE, solver.solve(losses, budget), losses) for solver in (FREE, program)]
    assert found[0] == pytest.approx(found[1], abs=1e-9)


@settings(max_examples=12)
@given(numbers, numbers, numbers, shares, shares, shares)
def test_no_listed_plan_within_all_budgets_is_better(
    values: list[int], first: list[int], second: list[int], share: float, one: float, other: float
) -> None:
    costs = [totals(first), totals(second)]
    limits = [
        limit_of(first, between(costs[0], one) + 2, fixed=2),
        limit_of(second, between(costs[1], other), "decode_ms"),
    ]
    losses = {variable: float(value) for variable, value in zip(FREE.variables, values, strict=True)}
    budget = between(SIZES, share)
    within = (budget >= SIZES) & (costs[0] + 2 <= limits[0].most) & (costs[1] <= limits[1].most)
    solver = Solver(SPACE, limits=limits)
    if not within.any():
        with pytest.raises(BudgetError, match="no plan meets|nothing meets the budget"):
            solver.solve(losses, budget)
        return
    plan = solver.solve(losses, budget)
    assert within[PLANS.index(plan)]
    assert toys.sum_of(SPACE, plan, losses) == pytest.approx(totals(values)[within].min(), abs=1e-9)


def test_the_budget_that_cannot_be_met_is_named() -> None:
    """With the least that can be: alone, or together with the others."""
    losses, one_each = toys.losses_of(SPACE), [1] * len(FREE.variables)
    least = totals(one_each).min()
    with pytest.raises(
        BudgetError, match=f"no plan meets decode_ms {least - 1:g}: the least that the space offers is {least:g}"
    ):
        Solver(SPACE, limits=[limit_of(one_each, least - 1, "decode_ms")]).solve(losses, SPACE.inventory.original_bytes)
    with pytest.raises(
        BudgetError, match=re.escape(f"nothing meets the budget of {SIZES.min() - 1:,} bytes: the smallest")
    ):
        Solver(SPACE, limits=[limit_of(one_each, 1e6)]).solve(losses, int(SIZES.min()) - 1)
    heavy = [int(1e6 - size) for size in FREE.sizes]  # the smaller a plan, the more it costs
    most = totals(heavy).min()
    together = int(SIZES[totals(heavy) <= most].min())
    solver = Solver(SPACE, limits=[limit_of(heavy, most)])
    with pytest.raises(
        BudgetError, match=rf"no plan meets {together - 1:,} bytes and .* together: the smallest .* has {together:,}"
    ):
        solver.solve(losses, together - 1)
    assert solver.smallest().size_bytes(SPACE.inventory) == together
    with pytest.raises(
        BudgetError, match="no plan meets kv_bytes_per_token .* and resident_bytes .* together; raise one of them"
    ):
        Solver(
            SPACE,
            limits=[limit_of(heavy, most), limit_of(FREE.sizes.tolist(), SIZES.min() - FREE.fixed, "resident_bytes")],
        ).smallest()


def test_numbers_that_say_nothing_are_refused() -> None:
    limit = limit_of([1] * len(FREE.variables), 5)
    some = dict(list(limit.costs.items())[1:])
    with pytest.raises(StudyError, match="limit kv: no value for .* at embed; give a number for every choice"):
        Solver(SPACE, limits=[Limit(name="kv", most=1, costs=some)])
    with pytest.raises(StudyError, match="two limits have one name"):
        Solver(SPACE, limits=[limit, limit])
    with pytest.raises(StudyError, match="limit kv has a number that is not finite"):
        Limit(name="kv", most=1, costs=dict.fromkeys(limit.costs, float("nan")))
    with pytest.raises(EvaluationError, match="the losses: .* is not finite"):
        FREE.solve(dict.fromkeys(limit.costs, float("inf")), 10**9)


def test_a_price_says_what_more_room_saves() -> None:
    """Prices of bytes and of a limit: on a model of many sites, as much as solving again with a tenth more gains."""
    space = toys.toy_space(
        blocks=30, max_drops=0, choices={"linear": [f"quantize bits={b} group_size=32" for b in (2, 3, 4, 5, 6, 8)]}
    )
    losses, free = toys.losses_of(space), Solver(space)
    budget = int(0.35 * space.inventory.original_bytes)
    first = free.solve(losses, budget)
    saved = toys.sum_of(space, first, losses) - toys.sum_of(space, free.solve(losses, int(1.04 * budget)), losses)
    before = toys.sum_of(space, free.solve(losses, int(0.96 * budget)), losses) - toys.sum_of(space, first, losses)
    price = free.prices(losses, budget)["size_bytes"] * 0.04 * budget
    assert 0 < saved < price < before  # losses are convex: the price is the slope in between
    assert free.prices(losses, 2 * space.inventory.original_bytes) == {"size_bytes": pytest.approx(0.0, abs=1e-12)}
    timed = Limit(
        name="decode_ms",
        most=budget / 1000,
        costs={v: s / 1000 for v, s in zip(free.variables, free.sizes, strict=True)},
    )
    prices = Solver(space, limits=[timed]).prices(losses, 2 * budget)
    assert prices["size_bytes"] == pytest.approx(0.0, abs=1e-12)
    assert prices["decode_ms"] == pytest.approx(1000 * free.prices(losses, budget + free.fixed)["size_bytes"], rel=0.1)
    with pytest.raises(BudgetError, match="nothing meets the budget of 1 bytes: the smallest"):
        free.prices(losses, 1)


def test_the_report_says_what_one_percent_more_would_buy() -> None:
    """As much as the solver finds with one percent more bytes."""
    space = toys.toy_space(
        blocks=60, max_drops=0, choices={"linear": [f"quantize bits={b} group_size=32" for b in (2, 3, 4, 5, 6, 8)]}
    )
    losses, solver = toys.losses_of(space), Solver(space)
    budget = int(0.35 * space.inventory.original_bytes)
    plans = solver.front(losses, [budget, int(1.01 * budget)])
    before, after = (toys.sum_of(space, plan, losses) for plan in plans)
    trial = replace(toys.trial_of(space, plans[0], 1.0), origin="solver", expected=Expectation(loss=before))
    known = changed(OUTCOME, measured=(trial,), budget_bytes=budget)
    (told,) = price_words(replace(known, prices=solver.prices(losses, budget)))
    found = re.fullmatch(
        r"At this budget 1 % more bytes would buy about ([0-9.]+) % less loss, as the search predicted .*", told
    )
    assert found and float(found[1]) == pytest.approx(100 * (1 - after / before), rel=0.15)
    assert price_words(known) == []


def table_of(space: Space) -> LatencyTable:
    """An invented machine: each kernel of the space takes a different time."""
    table = LatencyTable(
        device="", threads=1, dtype="bfloat16", kernels={}, scale=(1.5, 1.2), per_block_ms=(0.7, 0.3), calibration={}
    )
    for site in space.inventory.sites:
        for choice in {*space.options[site.name], *([KEEP] if site.is_leaf else [])}:
            while True:
                try:
                    table.site_ms(site, choice)
                    break
                except StudyError as error:
                    name = re.search(r"lacks (.*?);", str(error))
                    assert name
                    times = (1.0 + len(table.kernels) / 3, 0.5 + len(table.kernels) / 7)
                    table = table.model_copy(update={"kernels": {**table.kernels, name[1]: times}})
    return table


@pytest.mark.parametrize("target", ["paredown", "transformers"])
def test_the_costs_of_a_decode_limit_add_up_to_the_predicted_time(target: str) -> None:
    """For every plan, drops and pruned networks included, as the target runs it."""
    offered = {
        "linear": ["quantize bits=4", "keep"],
        "embedding": ["keep"],
        "ffn": ["prune-neurons sparsity=0.5"],
        "block": ["drop"],
    }
    made = toys.toy_space(max_drops=1, choices=offered)
    space = (
        made
        if target == "paredown"
        else Space(inventory=made.inventory, target=targets[target], options=made.options, max_drops=1)
    )
    table = table_of(space)
    limit = decode_limit(space, table, 10.0)
    for plan in toys.all_plans(space):
        predicted = table.predict(space.inventory, deployed_plan(plan, space.inventory, space.target))[0]
        assert limit.fixed + toys.sum_of(space, plan, limit.costs) == pytest.approx(predicted, rel=1e-9)


def test_what_is_slower_than_it_may_be_is_neither_the_best_nor_a_finalist() -> None:
    """A trial whose time is not known is not taken for fast either."""
    made = [toys.trial_of(SPACE, plan, 1.0 + number, number) for number, plan in enumerate(PLANS[:4])]
    trials = [
        replace(trial, times=Times(decode_ms=time)) for trial, time in zip(made, (None, 3.1, 3.0, 1.0), strict=True)
    ]
    outcome = changed(OUTCOME, measured=tuple(trials), max_decode_ms=3.0)
    assert outcome.best == trials[2]
    assert list(Finalists.of(outcome).searched) == trials[2:]
    assert changed(outcome, max_decode_ms=None).best == trials[0]


def test_a_limit_on_times_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="max_decode_ms needs a latency table; leave 'latency: off' out"):
        StudyFile(model="m", max_decode_ms=3.0, latency="off")
    encoder = replace(SPACE.inventory, causal=False)
    with pytest.raises(StudyError, match="Toy decodes no tokens; leave max_decode_ms out"):
        decode_limit(replace(SPACE, inventory=encoder), table_of(SPACE), 3.0)


def test_a_study_keeps_to_it(pico: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The solver's plans, the winner and a plan selected later are in time.

    What cannot be met is said before the first trial.
    """
    monkeypatch.setattr(timing, "REPEATS", 2)
    offered = {
        "linear": ["quantize bits=8", "keep"],
        "embedding": ["keep"],
        "block": ["drop"],
        "attention": [],
        "ffn": [],
    }
    question = {
        "model": str(pico("llama")),
        "data": [str(toys.write_text(tmp_path / "text.txt", toys.passages(120)))],
        "budget": "90%",
        "trials": 3,
        "tokens": {"calibration": 256, "search": 256, "selection": 256, "held_out": 256, "sequence_length": 32},
        "space": {"choices": offered, "max_drops": 1},
        "latency": str(tmp_path / "table.json"),
    }
    space = survey(StudyFile.model_validate(question))[1]
    table = table_of(space)
    table.write(tmp_path / "table.json")
    most = 1.01 * (
        table.predict(space.inventory, Plan.of(space.inventory, {"model.layers.0": parse_choice("drop")}))[0] or 0
    )
    found = paredown.find_plan({**question, "max_decode_ms": most}, tmp_path / "study", workers=1)
    assert found.best and found.best.times.decode_ms is not None and found.best.times.decode_ms <= most
    solved = [trial.times.decode_ms or 0 for trial in found.trials.measured if trial.origin == "solver"]
    assert solved and max(solved) <= most < max(trial.times.decode_ms or 0 for trial in found.trials.measured)
    assert f"{most:g} ms/token, predicted from timed layers" in (tmp_path / "study" / "report.md").read_text()
    with pytest.raises(BudgetError, match="no plan meets decode_ms .*: the least that the space offers is"):
        paredown.find_plan(
            {**question, "max_decode_ms": 1e-3}, tmp_path / "never", bank=tmp_path / "study" / "bank", workers=1
        )
    selected = paredown.select(tmp_path / "study", "95%").plan_file.plan_for(space.inventory)
    assert (table.predict(space.inventory, selected)[0] or 0) <= most
