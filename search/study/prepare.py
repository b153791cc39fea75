"""The steps before the trials: bank, sensitivities, latency table; a plan that can be applied is on disk early."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from paredown.evaluators.latency import REMEDY, LatencyTable, deployed_plan, timing_seconds
from paredown.search.outcome.front_file import stored_outcome
from paredown.search.outcome.outcome import Provisional, Trials
from paredown.search.outcome.plan_files import unmeasured_file
from paredown.search.samplers import Problem, Proposal
from paredown.search.sensitivity.lazy_choices import data_free, is_lazy, narrowed
from paredown.search.sensitivity.sensitivity import Sensitivity, stored_losses
from paredown.search.sensitivity.stored import SENSITIVITY
from paredown.search.solver.limits import decode_limit
from paredown.search.solver.solver import Solver
from paredown.search.study.impossible_budget import refuse_impossible
from paredown.search.study.schedule import Schedule
from paredown.search.study.session import Session
from paredown.search.trials.first_plans import first_plans, seed_plans
from paredown.search.trials.uniform import UniformPlan, uniform_plans
from paredown.search.workbench.workbench import Workbench
from paredown.space.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a search knows before its first trial.

    Attributes:
        problem: The problem that the sampler works on.
        seeds: Plans to measure first, each with its origin; the solver's plan for the budget is the first.
        latency: Latency table; None if latency is off.
        original_perplexity: The original's perplexity on the search set; None for encoders.
        schedule: Time budget of the run.
    """

    problem: Problem
    seeds: Sequence[tuple[str, Proposal]]
    latency: LatencyTable | None
    original_perplexity: float | None
    schedule: Schedule

    def times_of(self, plan: Plan) -> tuple[float | None, float] | None:
        """Predicted times of a plan, decode and prefill [ms/token]; None where unknown."""
        space = self.problem.space
        table, inventory = self.latency, space.inventory
        return table.predict(inventory, deployed_plan(plan, inventory, space.target)) if table else None


def prepare(session: Session) -> Prepared:
    """Fills the bank, estimates the sensitivities and measures the latency table; what is on disk is read.

    ``best/plan.yaml`` always holds the best plan known so far: first the largest uniform plan within the budget, then
    the solver's.

    Raises:
        BudgetError: If no plan meets the budget and the limit on time; the smallest plan was written.
        OutOfTime: At the limit.
    """
    study_file, budget = session.study_file, session.question.budget_bytes
    solver = _within_budget(session)
    with session.timed("bank"):
        uniform = uniform_plans(session.bench.space, budget)
        if fitting := [plan for plan in uniform if plan.size_bytes <= budget]:
            largest = max(fitting, key=lambda plan: plan.size_bytes)
            _offer(session, "uniform", Proposal(plan=largest.plan, label=largest.label), Trials())
        bench = session.bench
        if is_lazy(study_file, bench.space):
            bench = _narrowed(session)
            solver = Solver(bench.space)
        _fill(session, bench, [plan.plan for plan in uniform])
    with session.timed("sensitivity"):
        known = Trials(original_perplexity=_original_perplexity(session))
        losses = _losses(session, bench, SENSITIVITY)
        problem = Problem.of(study_file, solver, losses, len(bench.texts.sequences["search"]))
        sizes = [plan.size_bytes for plan in uniform]
        if study_file.max_decode_ms is None:
            solved = _solved(session, problem, sizes, known)
    with session.timed("latency"):
        session.progress.step("latency", 0, None)
        table = _latency_table(session, bench, uniform)
        if table and study_file.max_decode_ms is not None:
            limit = decode_limit(bench.space, table, study_file.max_decode_ms)
            problem = replace(problem, solver=Solver(bench.space, limits=[limit]))
            problem.solver.solve(losses, budget)  # raises an error that names the budget or limit at fault
            solved = _solved(session, problem, sizes, known, table)
    return Prepared(
        problem=problem,
        seeds=first_plans(solved, uniform, budget),
        latency=table,
        original_perplexity=known.original_perplexity,
        schedule=Schedule(session=session, timing=timing_seconds(table, 3) if table else 0.0),
    )


def _within_budget(session: Session) -> Solver:
    """Solver of the space, if some plan meets the budget.

    Raises:
        BudgetError: If none does; the smallest plan was written.
    """
    solver, asked = Solver(session.bench.space), session.question
    refuse_impossible(solver, asked.budget_bytes, session.reference, session.folder / "best" / "plan.yaml")
    if asked.budget_bytes >= asked.original_bytes:
        session.progress.say(
            f"the budget of {asked.budget_bytes:,} bytes is not below the original's {asked.original_bytes:,}: "
            "everything may be kept"
        )
    return solver


def _offer(
    session: Session, origin: str, proposal: Proposal, known: Trials, table: LatencyTable | None = None
) -> Provisional | None:
    """Writes a plan that can be applied; None if a trial was already measured."""
    before = stored_outcome(session.folder)
    if before.trials.measured if before else (session.folder / "study.db").is_file():
        return None
    size = proposal.plan.size_bytes(session.bench.space.inventory)
    found = Provisional(origin=origin, label=proposal.label, size_bytes=size, predicted_loss=proposal.predicted_loss)
    outcome = session.outcome(known, table, provisional=found)
    file = unmeasured_file(outcome, found, proposal.plan, session.reference)
    file.write(session.folder / "best" / "plan.yaml")
    session.publish(outcome)
    return found


def _narrowed(session: Session) -> Workbench:
    """The workbench without the calibrated choices that lie far from the front of their data-free siblings."""
    offered = session.bench.space
    free = replace(session.bench, space=data_free(offered))
    _fill(session, free)
    losses = _losses(session, free, "sensitivity-data-free.json")
    found = replace(free, space=narrowed(offered, free.space, losses, session.question.budget_bytes))
    before, now = (sum(map(len, space.options.values())) for space in (offered, found.space))
    session.progress.say(
        f"lazy bank: {now:,} of {before:,} choices lie near the budget; other calibrated choices are not compressed"
    )
    return found


def _fill(session: Session, bench: Workbench, beside: Sequence[Plan] = ()) -> None:
    bench.fill_bank(beside, partial(session.step, "bank"))
    session.name_records()


def _original_perplexity(session: Session) -> float | None:
    """Perplexity of the original on the search set; its passes set the pace."""
    started = time.monotonic()
    quality = session.bench.evaluator.measure(Plan())
    session.pace.read(2 * session.pace.tokens["search"], time.monotonic() - started)  # its predictions count too
    return quality.perplexity


def _losses(session: Session, bench: Workbench, name: str) -> Sensitivity:
    inputs = [bench.fingerprints[name] for name in ("calibration", "search", "origin")]
    return stored_losses(
        session.folder / name, session.study_file.sensitivity, inputs, bench.space, bench.planned, bench.bank,
        bench.texts.sequences["search"], partial(session.step, "sensitivity"),
    )  # fmt: skip


def _solved(
    session: Session, problem: Problem, sizes: Sequence[int], known: Trials, table: LatencyTable | None = None
) -> list[Proposal]:
    """The solver's plans, of which the one for the budget is offered."""
    solved = seed_plans(problem, sizes)
    if found := _offer(session, "solver", solved[0], known, table):
        what = f"{found.size_bytes:,} bytes, predicted loss {found.predicted_loss:.3g}, not measured yet"
        path = session.folder / "best" / "plan.yaml"
        session.progress.say(f"the solver's plan can be applied now: {path}, {what}")
    return solved


def _latency_table(session: Session, bench: Workbench, uniform: Sequence[UniformPlan]) -> LatencyTable | None:
    asked = session.study_file.latency
    if asked == "off":
        return None
    path = session.folder / "latency.json" if asked == "measure" else Path(asked)
    plans = [plan.plan for plan in uniform]
    table = bench.latency_table(path, session.wrap, plans, session.clock.check)
    if lacking := table.lacking(bench.space, plans):
        session.progress.say(
            f"the latency table {path} lacks {len(lacking)} kernels of this study ({lacking[0]}): "
            f"plans with such a kernel get no predicted time; {REMEDY}"
        )
    return table
