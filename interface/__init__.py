"""Pare a transformer down to the size you have: the verbs of the command line, as functions.

    import paredown

    outcome = paredown.find_plan({"model": "studies/models/demo", "budget": "40%", "trials": 60}, "runs/mine")
    paredown.apply("runs/mine/best/plan.yaml", "studies/models/demo", "runs/mine/model")
    model = paredown.load("runs/mine/model")

Importing this imports next to nothing, so that a command can listen to signals first; what is asked for imports what it needs.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paredown.space.paths import expanded

if TYPE_CHECKING:
    from paredown.compressors.holdings import Cleaning, Holdings
    from paredown.inspection import Inspection
    from paredown.models import apply, evaluate, generate, load, verify
    from paredown.question import Study
    from paredown.search.outcome import Outcome
    from paredown.search.progress import Progress
    from paredown.search.select import Selected
    from paredown.search.session import Changed
    from paredown.space.errors import BudgetError, ParedownError
    from paredown.space.plan_file import PlanFile
    from paredown.space.study_file import StudyFile
    from paredown.transferring import Transferred

    __version__: str

__all__ = [
    "BudgetError",
    "ParedownError",
    "PlanFile",
    "StudyFile",
    "__version__",
    "apply",
    "bank",
    "clean_bank",
    "dashboard",
    "evaluate",
    "find_plan",
    "generate",
    "inspect",
    "load",
    "report",
    "select",
    "status",
    "transfer",
    "validate",
    "verify",
]

_HOMES = {
    **dict.fromkeys(("apply", "evaluate", "generate", "load", "verify"), "paredown.models"),
    **dict.fromkeys(("BudgetError", "ParedownError"), "paredown.space.errors"),
    "PlanFile": "paredown.space.plan_file",
    "StudyFile": "paredown.space.study_file",
}
"""Where what is not defined here comes from."""

if not TYPE_CHECKING:  # a type checker knows every name from the imports above

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            value = version("paredown")
        elif name in _HOMES:
            value = getattr(importlib.import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


def inspect(model: str | Study, *, target: str = "paredown", budget: str = "45%") -> Inspection:
    """What can be decided about a model, in how many bytes, and what a search would cost; refuses what a search would refuse.

    Of the weights only the headers are read; the texts are read as a search reads them.

    Args:
        model: A model folder or hub name; or a study, whose target, budget, space and tokens are taken.
        target: The runtime that must run the result.
        budget: Such as ``45%``, ``3.5GB`` or ``4.25bpw``.

    Raises:
        CheckpointError: If the model is missing or incomplete, or has no tokenizer.
        StudyError: If the budget or the space cannot be read, or a search could not use the texts or the settings.
    """
    from paredown.inspection import inspect_study
    from paredown.question import as_study
    from paredown.space.study_file import StudyFile

    is_study = isinstance(model, (StudyFile, Mapping)) or str(model).endswith((".yaml", ".yml"))
    return inspect_study(as_study(model if is_study else {"model": str(model), "target": target, "budget": budget}))


def find_plan(
    study: Study,
    out: str | Path,
    *,
    progress: Progress | None = None,
    bank: str | Path | None = None,
    workers: int | None = None,
    fresh: bool = False,
    adopt: bool = False,
    began: float | None = None,
) -> Outcome:
    """Searches until more trials are not worth it, or the study says stop; in a folder of the same study it goes on where that was.

    Args:
        study: The question. One without a count or a clock is given at most 100 trials.
        out: The study folder: plans, front, report, database.
        progress: Who is told; nobody by default. Reports are written in any case.
        bank: Folder of compressed sites, shared between studies; in the study folder by default.
        workers: Processes that fill the bank, and threads of passes in order; one a core by default. What is found does not depend on it.
        fresh: Where the folder was measured with other weights, configuration, texts or libraries: move it to ``OUT.before-N`` and begin
            again. Nothing is deleted; a study whose inputs did not change goes on.
        adopt: In that case go on with its trials as they are, and record what changed.
        began: When the study's ``timeout`` began, as `time.monotonic` counts [s]; now by default.

    Returns:
        Everything that was measured; the winner's plan is ``out/best/plan.yaml``.

    Raises:
        StudyError: If the study, its texts or the folder cannot be used, or the folder was measured with other inputs.
        CheckpointError: If the model is missing, incomplete or compressed already.
        BudgetError: If nothing meets the budget; the smallest plan is in ``out/best/plan.yaml``.
    """
    began = time.monotonic() if began is None else began  # imports are a part of the run
    from paredown.progress import Silent
    from paredown.question import as_study, with_an_end
    from paredown.search.estimators import estimators
    from paredown.search.samplers import samplers
    from paredown.search.session import Session
    from paredown.space.errors import StudyError

    if fresh and adopt:
        raise StudyError("--fresh begins again and --adopt goes on; give one of them")
    question = with_an_end(as_study(study))
    samplers[question.sampler], estimators[question.sensitivity]  # unknown ones are refused before hours are spent
    changed: Changed = "fresh" if fresh else "adopt" if adopt else "refuse"
    told = progress or Silent()
    return Session(question, expanded(out), told, expanded(bank) if bank else None, workers, changed, began).run()


def status(folder: str | Path) -> Outcome:
    """What a study folder holds so far; also while a search runs in it.

    Raises:
        StudyError: If no trial is finished yet.
    """
    from paredown.search.outcome import Outcome

    return Outcome.read(expanded(folder))


def report(folder: str | Path) -> Path:
    """Writes the reports and pictures of a study folder anew; the path of ``report.html``.

    Raises:
        StudyError: If no trial is finished yet.
    """
    from paredown.search.report import write_report

    write_report(status(folder), expanded(folder))
    return expanded(folder) / "report.html"


def select(folder: str | Path, budget: str, out: str | Path | None = None) -> Selected:
    """The plan of a finished or running study for another budget, from what it measured; nothing is scored, no torch is needed.

    Args:
        folder: The study folder.
        budget: Such as ``45%``, ``3.5GB`` or ``4.25bpw``.
        out: The plan file to write; ``folder/select/BUDGET.yaml`` by default.

    Raises:
        StudyError: If the folder does not hold what is needed yet.
        BudgetError: If nothing meets the budget; the smallest plan was written.
    """
    from paredown.search.select import select_plan

    return select_plan(expanded(folder), budget, expanded(out) if out else None)


def transfer(
    plan: PlanFile | str | Path,
    study: Study,
    out: str | Path,
    *,
    trials: int = 8,
    progress: Progress | None = None,
    bank: str | Path | None = None,
    workers: int | None = None,
) -> Transferred:
    """A plan of one model for another of its family: carried over, made to fit, and measured there against uniform plans.

    Args:
        plan: The plan, or its file.
        study: Model, texts, and what else a search of the model would be asked; without a budget as many bytes a parameter as the
            plan took, without a target the plan's own.
        out: The plan file to write.
        trials: Moves of bytes between sites that are measured.
        progress: Who is told; nobody by default.
        bank: Folder of compressed sites; a temporary one by default.
        workers: Processes that fill the bank, and threads of passes in order; one a core by default.

    Raises:
        PlanError: If the models are of different families.
        BudgetError: If nothing meets the budget; the smallest plan was written.
        StudyError: If the study or its texts cannot be used.
        CheckpointError: If the model is missing, incomplete or compressed already.
    """
    from paredown.progress import Silent
    from paredown.question import as_study
    from paredown.space.plan_file import PlanFile
    from paredown.transferring import transfer_plan

    file, source = (plan, None) if isinstance(plan, PlanFile) else (PlanFile.read(expanded(plan)), expanded(plan))
    records = expanded(bank) if bank else None
    told = progress or Silent()
    return transfer_plan(
        file, source, as_study(study), expanded(out), trials=trials, bank=records, workers=workers, progress=told
    )


def bank(folder: str | Path) -> Holdings:
    """What a bank of compressed sites holds.

    Args:
        folder: The bank's, or that of a study.

    Raises:
        StudyError: If there is no bank.
    """
    from paredown.compressors.holdings import holdings

    return holdings(expanded(folder))


def clean_bank(folder: str | Path, keep: Sequence[str | Path] = (), *, dry_run: bool = True) -> Cleaning:
    """Removes from a bank what no search can find again; where studies to keep are named, whatever none of them needs.

    Args:
        folder: The bank's, or that of a study, which is kept then.
        keep: Study folders. Without any, every record that can be found stays.
        dry_run: Whether to count only.

    Raises:
        StudyError: If there is no bank, or a folder to keep names no records.
        OutputError: If a file cannot be removed.
    """
    from paredown.compressors.holdings import clean

    return clean(expanded(folder), [expanded(study) for study in keep], dry_run=dry_run)


def validate(file: str | Path, model: str | Path | None = None) -> PlanFile | StudyFile:
    """A plan or study file, once it was checked; against a model, too, where one is given.

    Raises:
        PlanError: If the plan has a fault or does not fit the model; all faults in one message.
        StudyError: If the study has one.
    """
    from paredown.inspection import validated

    return validated(expanded(file), str(model) if model else None)


def dashboard(
    folder: str | Path, port: int = 8080, *, allow_edits: bool = False, ready: Callable[[], None] = lambda: None
) -> None:
    """Serves Optuna's dashboard of a study on this machine only, from this process, until it is interrupted.

    Args:
        folder: The study folder.
        port: Where it listens.
        allow_edits: Whether the study can be changed from it: notes, names, and whether it is there at all.
        ready: Called once it listens.

    Raises:
        StudyError: If the folder holds no study, or the port is taken.
    """
    from paredown.dashboard_server import serve

    serve(expanded(folder), port, allow_edits=allow_edits, ready=ready)
