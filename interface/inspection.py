"""Checks and forecasts of a model, a plan or a study, before anything is compressed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paredown.space.errors import PlanError, StudyError
from paredown.space.plan_file import PlanFile
from paredown.space.space import Space
from paredown.space.study_file import StudyFile


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model as it is stored.

    Attributes:
        model: The model as it was given.
        architecture: Class of the model.
        parameters: Number of parameters; tied ones count once.
        original_bytes: Tensor bytes of the original as stored.
    """

    model: str
    architecture: str
    parameters: int
    original_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection(StoredModel):
    """A model and its search space under a study.

    Attributes:
        target: Name of the runtime.
        smallest_bytes: Tensor bytes of the smallest plan in the space.
        budget: The budget as it was given.
        budget_bytes: Tensor bytes that the budget allows.
        sites: Sites, each with ``name``, ``kind``, ``bytes`` as stored, and ``choices`` with their bytes.
        refusals: Why some sites can only be kept.
        remarks: Choices in the study that no site takes, and kinds of site that keep their default choices.
        storage_only: Methods among the choices that save bytes on disk only.
        cost: Expected cost of a search.
    """

    target: str
    smallest_bytes: int
    budget: str
    budget_bytes: int
    sites: tuple[dict[str, Any], ...]
    refusals: tuple[str, ...]
    remarks: tuple[str, ...]
    storage_only: tuple[str, ...]
    cost: dict[str, Any]

    @property
    def kinds(self) -> dict[str, tuple[int, int, int]]:
        """By kind of site: number of sites, tensor bytes as stored, and most choices of any one site."""
        table: dict[str, tuple[int, int, int]] = {}
        for site in self.sites:
            count, size, most = table.get(site["kind"], (0, 0, 0))
            table[site["kind"]] = (count + 1, size + site["bytes"], max(most, len(site["choices"])))
        return table


def inspect_study(study_file: StudyFile) -> Inspection:
    """The model and search space of a study, and the cost of a search; refuses what a search would refuse.

    Reads the headers of the weights, and the texts.

    Raises:
        CheckpointError: If the model is missing or incomplete, or has no tokenizer.
        StudyError: If the space cannot be built, or a search could not use the texts or the settings.
        UnknownNameError: If the sampler or the sensitivity is unknown.
    """
    from paredown.compressors.original.checkpoint import config_of
    from paredown.search.cost.admission import check_study
    from paredown.search.workbench.survey import survey
    from paredown.search.workbench.texts import Texts

    folder, space = survey(study_file)
    check_study(study_file, config_of(folder), space)
    Texts.of(study_file, folder)
    return survey_study(study_file, (folder, space))


def survey_study(study_file: StudyFile, surveyed: tuple[Path, Space] | None = None) -> Inspection:
    """The same as `inspect_study`, without reading the texts; times small computations to estimate the cost.

    Raises:
        CheckpointError: If the model is missing or incomplete.
        StudyError: If the space cannot be built.
    """
    from paredown.search.cost.cost import estimate
    from paredown.search.solver.solver import Solver
    from paredown.search.workbench.survey import survey

    folder, space = surveyed or survey(study_file)
    inventory = space.inventory
    used = {step for options in space.options.values() for choice in options for step in choice.steps}
    return Inspection(
        model=study_file.model,
        architecture=inventory.architecture,
        target=study_file.target,
        parameters=inventory.parameters,
        original_bytes=inventory.original_bytes,
        smallest_bytes=Solver(space).smallest().size_bytes(inventory),
        budget=study_file.budget.text,
        budget_bytes=inventory.budget_bytes(study_file.budget),
        sites=_sites(space),
        refusals=tuple(space.refusals()),
        remarks=tuple(space.remarks(study_file.space)),
        storage_only=tuple(sorted({step.method for step in used if step.storage.storage_only})),
        cost=asdict(estimate(study_file, folder, space)),
    )


def _sites(space: Space) -> tuple[dict[str, Any], ...]:
    layout = space.inventory.original_layout()
    found = []
    for site in space.inventory.sites:
        members = {member.module for member in site.members}
        prefix = f"{site.name}." if site.kind == "block" else None
        owned = [
            spec
            for key, spec in layout.items()
            if key.rpartition(".")[0] in members or (prefix and key.startswith(prefix))
        ]
        choices = {str(choice): size for choice, size in zip(space.options[site.name], space.sizes(site), strict=True)}
        found.append(
            {"name": site.name, "kind": site.kind, "bytes": sum(spec.size_bytes for spec in owned), "choices": choices}
        )
    return tuple(found)


def validated(path: Path, model: str | None) -> PlanFile | StudyFile:
    """The content of a plan or study file, checked; also against the model if one is given.

    Raises:
        PlanError: If the plan is invalid or does not fit the model.
        StudyError: If the study is invalid, or a search could not use its texts or settings with the model.
        BudgetError: If the model has no plan within the study's budget.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read ({error}); give a plan or a study file") from None
    if any(line.startswith(("base_model:", "choices:")) for line in text.splitlines()):
        plan = PlanFile.read(path)
        if model:
            _check_plan(plan, model)
        return plan
    study_file = StudyFile.read(path)
    _check_study(study_file.model_copy(update={"model": model}) if model else study_file, survey_model=bool(model))
    return study_file


def _check_plan(plan_file: PlanFile, model: str) -> None:
    from paredown.compressors.original.checkpoint import config_sha256, resolve
    from paredown.compressors.original.find_sites import inventory_of
    from paredown.space.targets.target import targets

    folder = resolve(model)
    inventory = inventory_of(folder, ties=targets[plan_file.target].ties)
    size = plan_file.plan_for(inventory).size_bytes(inventory)
    if size != plan_file.size_bytes and config_sha256(folder) == plan_file.base_model.config_sha256:
        raise PlanError(
            f"the plan says size_bytes {plan_file.size_bytes}, but its choices take {size}; set size_bytes to {size}"
        )


def _check_study(study_file: StudyFile, *, survey_model: bool) -> None:
    from paredown.search.cost.admission import check_names

    check_names(study_file)
    if survey_model:
        possible(inspect_study(study_file))


def forecast(study_file: StudyFile, folder: Path) -> Inspection:
    """The cost of a search in a study folder; refuses what the search would refuse, including too short a time limit.

    Raises:
        BudgetError: If no plan is within the budget.
        StudyError: If the study, its texts or its time limit cannot be used.
        CheckpointError: If the model is missing or incomplete, or has no tokenizer.
    """
    from paredown.search.study.limit import check_limit
    from paredown.search.trials.clock import Clock, process_began

    found = possible(inspect_study(study_file))
    check_limit(study_file, Clock.of(study_file, process_began()), folder)
    return found


def possible(found: Inspection) -> Inspection:
    """The inspection, if some plan is within the budget.

    Raises:
        BudgetError: If no plan is.
    """
    from paredown.search.solver.refusal import refusal

    if found.budget_bytes < found.smallest_bytes:
        raise refusal(found.budget_bytes, found.smallest_bytes, found.original_bytes, found.refusals)
    return found
