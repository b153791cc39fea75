"""Pare a transformer down to the size you have: the commands of the command line, as functions.

    import paredown

    outcome = paredown.find_plan({"model": "studies/models/demo", "budget": "40%", "trials": 60}, "runs/mine")
    paredown.apply("runs/mine/best/plan.yaml", "studies/models/demo", "runs/mine/model")
    model = paredown.load("runs/mine/model")

Each function imports what it needs, so that a command can install its signal handlers before any heavy import.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paredown.space.system.paths import expanded

if TYPE_CHECKING:
    from paredown.compressors.bank.contents import Cleaning, Holdings
    from paredown.inspection import Inspection
    from paredown.models import apply, evaluate, generate, load, verify
    from paredown.search.outcome.outcome import Outcome
    from paredown.search.outcome.progress import Progress
    from paredown.search.study.select import Selected
    from paredown.search.study.session import Changed
    from paredown.space.errors import BudgetError, ParedownError
    from paredown.space.plan_file import PlanFile
    from paredown.space.study_file import StudyFile
    from paredown.studies import Study
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

_HOMES = {  # modules of the names that are not defined here
    **dict.fromkeys(("apply", "evaluate", "generate", "load", "verify"), "paredown.models"),
    **dict.fromkeys(("BudgetError", "ParedownError"), "paredown.space.errors"),
    "PlanFile": "paredown.space.plan_file",
    "StudyFile": "paredown.space.study_file",
}

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
    """The sites of a model, their choices and bytes, and the cost of a search; refuses what a search would refuse.

    Reads only the headers of the weights. Reads the texts as a search does.

    Args:
        model: A model folder or hub name; or a study, with its own target, budget, space and tokens.
        target: Runtime that the result must run in.
        budget: A size budget such as ``45%``, ``3.5GB`` or ``4.25bpw``.

    Raises:
        CheckpointError: If the model is missing or incomplete, or has no tokenizer.
        StudyError: If the budget or the space is invalid, or a search could not use the texts or the settings.
    """
    from paredown.inspection import inspect_study
    from paredown.space.study_file import StudyFile
    from paredown.studies import as_study

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
    """Searches until more trials are not worth it, or a limit of the study is reached.

    A folder of the same study is resumed.

    Args:
        study: The study. Without a trial limit, a time limit or a number as patience, it gets at most 100 trials.
        out: The study folder: plans, front, report, trial database.
        progress: Receives the progress; silent by default. Reports are always written.
        bank: Folder of compressed sites, shared between studies; inside the study folder by default.
        workers: Processes that fill the bank, and threads of in-order passes; one per core by default. The result does
            not depend on it.
        fresh: If the folder was measured with other weights, configuration, texts or libraries: move it to
            ``OUT.before-N`` and start over. Nothing is deleted. A study whose inputs did not change resumes.
        adopt: In the same case: resume with the existing trials, and record what changed.
        began: Start of the study's ``timeout`` on the clock of `time.monotonic` [s]; now by default.

    Returns:
        All measurements. The winner's plan is ``out/best/plan.yaml``.

    Raises:
        StudyError: If the study, its texts or the folder cannot be used, or the folder was measured with other inputs.
        CheckpointError: If the model is missing, incomplete or already compressed.
        BudgetError: If no plan meets the budget; the smallest plan is in ``out/best/plan.yaml``.
    """
    began = time.monotonic() if began is None else began  # imports count as part of the run
    from paredown.cli.progress import Silent
    from paredown.deploy.engines import engine_of
    from paredown.search.study.run import run_study
    from paredown.search.trials.clock import Clock
    from paredown.space.errors import StudyError
    from paredown.studies import as_study, with_an_end

    if fresh and adopt:
        raise StudyError("--fresh starts over and --adopt resumes; give only one of them")
    study_file = with_an_end(as_study(study))
    changed: Changed = "fresh" if fresh else "adopt" if adopt else "refuse"
    return run_study(
        study_file, expanded(out), progress or Silent(), engine_of(study_file.target).wrap, workers=workers,
        bank=expanded(bank) if bank else None, changed=changed, clock=Clock.of(study_file, began),
    )  # fmt: skip


def status(folder: str | Path) -> Outcome:
    """The outcome of a study so far, read from its folder; also while a search runs.

    Raises:
        StudyError: If no trial is finished yet.
    """
    from paredown.search.outcome.front_file import read_front_file

    return read_front_file(expanded(folder))


def report(folder: str | Path) -> Path:
    """Rewrites the reports and pictures of a study folder; the path of ``report.html``.

    Raises:
        StudyError: If no trial is finished yet.
    """
    from paredown.search.report.report import write_report

    write_report(status(folder), expanded(folder))
    return expanded(folder) / "report.html"


def select(folder: str | Path, budget: str, out: str | Path | None = None) -> Selected:
    """A plan for another budget, from the measurements of a finished or running study; scores nothing, needs no torch.

    Args:
        folder: The study folder.
        budget: A size budget such as ``45%``, ``3.5GB`` or ``4.25bpw``.
        out: The plan file to write; ``folder/select/BUDGET.yaml`` by default.

    Raises:
        StudyError: If the folder lacks measurements that are needed.
        BudgetError: If no plan meets the budget; the smallest plan was written.
    """
    from paredown.search.study.select import select_plan

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
    """Transfers a plan to another model of its family: adapts it, and compares it there with uniform plans.

    Args:
        plan: The plan file's content, or its path.
        study: The model, its texts and the other settings of a search. The default budget is the plan's bytes per
            parameter, the default target the plan's own.
        out: The plan file to write.
        trials: Number of moves of bytes between sites to measure.
        progress: Receives the progress; silent by default.
        bank: Folder of compressed sites; a temporary one by default.
        workers: Processes that fill the bank, and threads of in-order passes; one per core by default.

    Raises:
        PlanError: If the models are of different families.
        BudgetError: If no plan meets the budget; the smallest plan was written.
        StudyError: If the study or its texts cannot be used.
        CheckpointError: If the model is missing, incomplete or already compressed.
    """
    from paredown.cli.progress import Silent
    from paredown.space.plan_file import PlanFile
    from paredown.studies import as_study
    from paredown.transferring import transfer_plan

    file, source = (plan, None) if isinstance(plan, PlanFile) else (PlanFile.read(expanded(plan)), expanded(plan))
    return transfer_plan(
        file, source, as_study(study), expanded(out), trials=trials, bank=expanded(bank) if bank else None,
        workers=workers, progress=progress or Silent(),
    )  # fmt: skip


def bank(folder: str | Path) -> Holdings:
    """The content of a bank of compressed sites.

    Args:
        folder: The bank folder, or a study folder that contains one.

    Raises:
        StudyError: If there is no bank.
    """
    from paredown.compressors.bank.contents import holdings

    return holdings(expanded(folder))


def clean_bank(folder: str | Path, keep: Sequence[str | Path] = (), *, dry_run: bool = True) -> Cleaning:
    """Removes the files of a bank that no search can use again; with ``keep``, also those that no kept study needs.

    Args:
        folder: The bank folder, or a study folder that contains one; that study is then kept.
        keep: Study folders to keep. Without any, every usable record stays.
        dry_run: Whether to count files without removing them.

    Raises:
        StudyError: If there is no bank, or a kept study folder names no records.
        OutputError: If a file cannot be removed.
    """
    from paredown.compressors.bank.contents import clean

    return clean(expanded(folder), [expanded(study) for study in keep], dry_run=dry_run)


def validate(file: str | Path, model: str | Path | None = None) -> PlanFile | StudyFile:
    """The content of a plan or study file, checked; also against a model if one is given.

    Raises:
        PlanError: If the plan is invalid or does not fit the model; the message lists all faults.
        StudyError: If the study is invalid.
    """
    from paredown.inspection import validated

    return validated(expanded(file), str(model) if model else None)


def dashboard(
    folder: str | Path, port: int = 8080, *, allow_edits: bool = False, ready: Callable[[], None] = lambda: None
) -> None:
    """Serves Optuna's dashboard of a study, on this machine only, until this process is interrupted.

    Args:
        folder: The study folder.
        port: Port to listen on.
        allow_edits: Whether the page may change the study: edit notes and names, and delete the study.
        ready: Called once the server listens.

    Raises:
        StudyError: If the folder holds no study, or the port is taken.
    """
    from paredown.dashboard_server import serve

    serve(expanded(folder), port, allow_edits=allow_edits, ready=ready)
