"""Transfer of a plan to another model of the family, with measurements on that model."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paredown.space.budget import Budget
from paredown.space.errors import BudgetError, CheckpointError, StudyError
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference, PlanFile
from paredown.space.site import Inventory
from paredown.space.space import Space
from paredown.space.study_file import StudyFile
from paredown.space.system.paths import expanded
from paredown.studies import DEFAULT_TRIALS

if TYPE_CHECKING:
    from paredown.search.outcome.outcome import Outcome
    from paredown.search.outcome.progress import Progress
    from paredown.search.study.transfer_trials import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """A transferred plan, measured on its new model.

    Attributes:
        path: The plan file.
        plan_file: Its content: the transferred plan, or the best uniform plan if the transferred one is not
            significantly better.
        made_for: Name of the model that the first plan was made for.
        by_name: Whether both models have the same names and shapes.
        before_bytes: Tensor bytes of the transferred plan before it was adapted to the budget.
        repaired: Number of sites changed to fit the budget.
        moved: Number of sites changed further by measured moves of bytes.
        outcome: Outcome as of a search: measurements, winner, comparison with the best uniform plan within the budget.
        tokens: Tokens read in forward passes.
        anew_trials: Trials of a new search of this model, for comparison.
        anew_tokens: Tokens that such a search would read.
        seconds: Total time [s].
    """

    path: Path
    plan_file: PlanFile
    made_for: str
    by_name: bool
    before_bytes: int
    repaired: int
    moved: int
    outcome: Outcome
    tokens: int
    anew_trials: int
    anew_tokens: int
    seconds: float


def transfer_plan(
    plan_file: PlanFile,
    source: Path | None,
    study_file: StudyFile,
    path: Path,
    *,
    trials: int,
    bank: Path | None,
    workers: int | None,
    progress: Progress,
) -> Transferred:
    """Transfers a plan, adapts it, compares it with uniform plans on held-out texts, and writes the better one.

    Args:
        plan_file: The plan.
        source: Path of the plan's file; its study folder describes the first model.
        study_file: The new model, its texts, target, space and seed; the budget only if it was set.
        path: The plan file to write.
        trials: Number of moves of bytes between sites to measure.
        bank: Folder of compressed sites; a temporary one by default.
        workers: Processes that fill the bank, and threads of in-order passes.
        progress: Receives the progress.

    Raises:
        PlanError: If the models are of different families.
        BudgetError: If no plan meets the budget; the smallest plan was written.
        StudyError: If the texts or the space cannot be used.
        CheckpointError: If the model is missing or incomplete.
        EvaluationError: If no plan gives finite predictions.
    """
    from paredown.search.cost.cost import tokens_of_search
    from paredown.search.neighbours.repair import changed_sites

    started = time.monotonic()
    task = _adapted(plan_file, source, study_file, path)
    measured = _measured(task, trials, bank, workers, progress)
    outcome = measured.outcome
    anew_trials = task.study_file.trials or DEFAULT_TRIALS
    anew = tokens_of_search(task.study_file, task.space, anew_trials)
    file = _written(outcome, task.reference, _provenance(plan_file, source, measured.tokens, anew))
    file.write(path)
    inventory = task.space.inventory
    searched = outcome.trials[outcome.decision.searched].plan if outcome.decision.searched is not None else task.plan
    return Transferred(
        path=path,
        plan_file=file,
        made_for=plan_file.base_model.name,
        by_name=plan_file.base_model.shapes_sha256 == inventory.shapes_sha256(),
        before_bytes=task.before.size_bytes(inventory),
        repaired=changed_sites(inventory, task.before, task.plan),
        moved=changed_sites(inventory, task.plan, searched),
        outcome=outcome,
        tokens=measured.tokens,
        anew_trials=anew_trials,
        anew_tokens=anew,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """A plan on its new model, before anything is measured there.

    Attributes:
        study_file: The study of the new model, with the target and the budget that hold.
        space: The search space of the new model.
        reference: The new model.
        before: The transferred plan, before it was adapted to the budget.
        plan: The nearest plan within the budget.
        budget_bytes: The budget [bytes].
    """

    study_file: StudyFile
    space: Space
    reference: BaseModelReference
    before: Plan
    plan: Plan
    budget_bytes: int


def _adapted(plan_file: PlanFile, source: Path | None, study_file: StudyFile, path: Path) -> Adapted:
    """The plan on the new model, within the budget; raises what `transfer_plan` does, evaluation apart."""
    from paredown.evaluators.metrics import metric_for
    from paredown.search.workbench.survey import reference_of, survey
    from paredown.space.transfer import transferred

    if "target" not in study_file.model_fields_set:
        study_file = study_file.model_copy(update={"target": plan_file.target})
    folder, space = survey(study_file)
    metric_for(study_file.metric, causal=space.inventory.causal)
    original = original_of(plan_file, source)
    before = transferred(plan_file, space, original)
    budget = budget_of(study_file, plan_file, original, before, space.inventory)
    study_file = study_file.model_copy(update={"budget": Budget.parse(f"{budget}B")})
    reference = reference_of(study_file, folder, space.inventory)
    plan = _fitted(space, before, budget, reference, path)
    return Adapted(
        study_file=study_file, space=space, reference=reference, before=before, plan=plan, budget_bytes=budget
    )


def _measured(task: Adapted, trials: int, bank: Path | None, workers: int | None, progress: Progress) -> Measured:
    """The adapted plan, its moves of bytes and the uniform plans, measured."""
    from paredown.compressors.bank.folder import bank_in_use
    from paredown.compressors.calibration.statistics_folder import again_if_damaged
    from paredown.search.study.transfer_trials import Transfer, near_study
    from paredown.search.workbench.workbench import Workbench

    with bank_in_use(bank) as records:
        near = near_study(task.study_file, task.space, task.plan)

        def run() -> Measured:
            bench = Workbench.open(near, records, workers, say=progress.say)
            return Transfer(bench, task.space, task.plan, task.budget_bytes, progress).run(trials)

        return again_if_damaged(run, progress.say)


def _provenance(plan_file: PlanFile, source: Path | None, tokens: int, anew: int) -> dict[str, Any]:
    """What is known about a transfer beside its measurements."""
    known = {"made_for": plan_file.base_model.name, "tokens": tokens, "tokens_anew": anew}
    return {"plan": str(source), **known} if source else known


def original_of(plan_file: PlanFile, source: Path | None) -> Inventory | None:
    """Sites of the model that a plan was made for, from the plan's study folder or from the model's folder.

    None if neither folder describes that model.
    """
    from paredown.compressors.original.find_sites import inventory_of
    from paredown.search.outcome.inventory_file import read_inventory

    found = []
    for folder in source.resolve().parents[:3] if source else ():
        with suppress(StudyError):
            found.append(read_inventory(folder))
    if (expanded(plan_file.base_model.name) / "config.json").is_file():
        with suppress(CheckpointError):
            found.append(inventory_of(expanded(plan_file.base_model.name)))
    return next(
        (inventory for inventory in found if inventory.shapes_sha256() == plan_file.base_model.shapes_sha256), None
    )


def budget_of(
    study_file: StudyFile, plan_file: PlanFile, original: Inventory | None, plan: Plan, inventory: Inventory
) -> int:
    """Budget of the transferred plan [bytes].

    The study's budget, if it was set. Otherwise the first plan's bytes per parameter. If both models have the same
    shapes, or the first one is unknown, the bytes of the transferred plan.
    """
    if "budget" in study_file.model_fields_set:
        return inventory.budget_bytes(study_file.budget)
    if original is None or plan_file.base_model.shapes_sha256 == inventory.shapes_sha256():
        return plan.size_bytes(inventory)
    return plan_file.size_bytes * inventory.parameters // original.parameters


def _fitted(space: Space, plan: Plan, budget_bytes: int, reference: BaseModelReference, path: Path) -> Plan:
    """The nearest plan within a budget.

    Raises:
        BudgetError: If no plan meets the budget; the smallest plan was written.
    """
    from paredown.search.neighbours.repair import repaired, widened
    from paredown.search.solver.solver import Solver
    from paredown.search.study.impossible_budget import refuse_impossible

    refuse_impossible(Solver(widened(space, plan)), budget_bytes, reference, path)
    return repaired(space, plan, budget_bytes)


def _written(outcome: Outcome, reference: BaseModelReference, known: dict[str, Any]) -> PlanFile:
    """The winner's plan file with its provenance; if a uniform plan wins, also with the transferred plan's quality.

    Raises:
        BudgetError: If no measured plan is within the budget.
    """
    from paredown.search.outcome.plan_files import measured_file

    if outcome.best is None:
        raise BudgetError(f"no measured plan is within {outcome.question.budget_bytes:,} bytes; raise --budget")
    file = measured_file(outcome, outcome.best, reference)
    provenance = {key: value for key, value in file.provenance.items() if key not in ("study", "trial", "origin")}
    update: dict[str, Any] = {
        "provenance": {"origin": "uniform" if outcome.best.origin == "uniform" else "transfer", **known, **provenance}
    }
    decision = outcome.decision
    against = decision.comparisons.get("uniform")
    if against and decision.searched is not None and outcome.best.origin == "uniform":
        size, quality = outcome.trials[decision.searched].size_bytes, decision.held_out[decision.searched].mean
        compared = {"size_bytes": size, "quality": quality, "ratio": against.mean}
        update["compared_with"] = {"transferred": {**compared, "ratio_ci95": [against.low, against.high]}}
    return file.model_copy(update=update)
