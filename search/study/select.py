"""Plans for another budget of a measured study: solved from its folder, without torch and without scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paredown.evaluators.metrics import metrics
from paredown.search.outcome.front_file import read_front_file
from paredown.search.outcome.inventory_file import read_inventory
from paredown.search.outcome.outcome import Outcome
from paredown.search.outcome.plan_files import calibration_of, plan_file, quality_of
from paredown.search.sensitivity.stored import SENSITIVITY, read_losses, read_sensitivity
from paredown.search.solver.limits import decode_limit
from paredown.search.solver.solver import Losses, Solver
from paredown.search.study.impossible_budget import refuse_impossible
from paredown.search.surrogate.features import Basis
from paredown.search.surrogate.gaussian_process import Surrogate
from paredown.search.trial import Trial, best_within
from paredown.space.budget import Budget
from paredown.space.errors import StudyError
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference, PlanFile
from paredown.space.space import Space
from paredown.space.study_file import StudyFile
from paredown.space.targets.target import targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """A plan for another budget.

    Attributes:
        path: Path of the plan file.
        plan_file: Content of the plan file.
        budget_bytes: Most bytes that the budget allows.
        original_bytes: Bytes of the original's tensors as stored.
        predicted_loss: Loss predicted by the surrogate of the measured trials.
        measured: The trial of this very plan; None if it was not measured.
        alternative: The best trial within the budget; None if there is none.
    """

    path: Path
    plan_file: PlanFile
    budget_bytes: int
    original_bytes: int
    predicted_loss: float
    measured: Trial | None
    alternative: Trial | None


def select_plan(folder: Path, budget: str, out: Path | None = None) -> Selected:
    """Writes the plan of least predicted loss within a budget to ``out``, or to ``folder/select/BUDGET.yaml``.

    Raises:
        StudyError: If the budget has no valid form, or the study folder has no sensitivities yet.
        BudgetError: If no plan meets the budget; the smallest plan was written.
    """
    asked = Budget.parse(budget)
    outcome = read_front_file(folder)
    study_file = StudyFile.read(folder / "study.yaml")
    inventory = read_inventory(folder)
    losses = read_losses(read_sensitivity(folder / SENSITIVITY))
    built = Space.build(inventory, targets[study_file.target], study_file.space)
    scored = {
        name: tuple(choice for choice in choices if (name, choice) in losses) for name, choices in built.options.items()
    }
    space = replace(built, options=scored)
    solver = _solver(space, folder, study_file)
    reference = _reference(folder)
    path = out or folder / "select" / f"{asked.text.replace(' ', '').replace('%', 'percent')}.yaml"
    allowed = inventory.budget_bytes(asked)
    refuse_impossible(solver, allowed, reference, path)
    plan, predicted = learnt(solver, losses, outcome.trials.measured, allowed)
    if predicted is None:
        raise StudyError(f"{folder}/sensitivity.json does not fit the study's space; run the search again to resume it")
    trial = next((trial for trial in outcome.trials.measured if trial.plan == plan), None)
    file = plan_file(
        plan,
        reference,
        study_file.target,
        plan.size_bytes(inventory),
        calibration=calibration_of(
            outcome, plan, in_order=any(refit.gains for refit in outcome.decision.refits.values())
        ),
        quality=_quality(outcome, predicted, trial),
        provenance=_provenance(outcome, plan, trial, asked.text),
    )
    file.write(path)
    return Selected(
        path=path,
        plan_file=file,
        budget_bytes=allowed,
        original_bytes=inventory.original_bytes,
        predicted_loss=predicted,
        measured=trial,
        alternative=best_within(outcome.trials.measured, allowed, study_file.max_decode_ms),
    )


def learnt(solver: Solver, losses: Losses, trials: Sequence[Trial], budget_bytes: int) -> tuple[Plan, float | None]:
    """The solver's plan under the surrogate's expected losses, and its predicted loss.

    The predicted loss is None if one of the plan's choices has no sensitivity.
    """
    surrogate = Surrogate(Basis(solver.space.inventory, losses), trials)
    plan = solver.solve(surrogate.expected(budget_bytes), budget_bytes)
    return plan, surrogate.predicted_loss(plan)


def _solver(space: Space, folder: Path, study_file: StudyFile) -> Solver:
    """Solver with the study's limits beside the bytes."""
    if study_file.max_decode_ms is None:
        return Solver(space)
    from paredown.evaluators.latency import LatencyTable  # imports torch

    table = LatencyTable.read(folder / "latency.json" if study_file.latency == "measure" else Path(study_file.latency))
    return Solver(space, limits=[decode_limit(space, table, study_file.max_decode_ms)])


def _quality(outcome: Outcome, predicted: float, trial: Trial | None) -> dict[str, Any]:
    quality: dict[str, Any] = {
        "metric": outcome.question.metric,
        "unit": metrics[outcome.question.metric].unit_in_words,
        "measured_on": "predicted",
        "mean": predicted,
    }
    quality["trials"] = len(outcome.trials.measured)
    if trial:
        quality["measured"] = quality_of(outcome, trial)
    return quality


def _provenance(outcome: Outcome, plan: Plan, trial: Trial | None, budget: str) -> dict[str, Any]:
    known = {
        key: outcome.circumstances.environment[key]
        for key in ("paredown", "numpy", "scipy")
        if key in outcome.circumstances.environment
    }
    return {
        "study": outcome.question.model,
        "origin": "select",
        "budget": budget,
        "seed": outcome.question.seed,
        **({"trial": trial.number} if trial else {}),
        **known,
    }


def _reference(folder: Path) -> BaseModelReference:
    for path in (folder / "best" / "plan.yaml", *sorted(folder.glob("front/*/plan.yaml"))):
        if path.is_file():
            return PlanFile.read(path).base_model
    raise StudyError(f"{folder} holds no plan yet; give the folder of a search that finished a trial")
