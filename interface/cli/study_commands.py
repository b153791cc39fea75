"""Commands on studies: each parses its options, calls the function of its name, and prints the result."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import paredown
from paredown import signals
from paredown.cli import wording as words
from paredown.cli.options import (
    Adopt,
    BudgetText,
    Data,
    Folder,
    Fresh,
    Json,
    Latency,
    MaxDecode,
    Model,
    Patience,
    Sampler,
    Seed,
    StudyBank,
    Target,
    Timeout,
    Trials,
    Until,
    Workers,
)
from paredown.cli.output import print_json, print_lines, print_outcome
from paredown.inspection import forecast, survey_study
from paredown.search.trials.clock import process_began
from paredown.space.errors import StudyError
from paredown.space.study_file import StudyFile
from paredown.space.system.paths import expanded
from paredown.streams import note
from paredown.studies import demo_study, study_of, with_an_end


def search(
    study: Annotated[Path | None, typer.Argument(help="a study file; flags override it", show_default=False)] = None,
    model: Model = None,
    data: Data = None,
    target: Target = None,
    budget: BudgetText = None,
    trials: Trials = None,
    timeout: Timeout = None,
    until: Until = None,
    patience: Patience = None,
    sampler: Sampler = None,
    latency: Latency = None,
    max_decode_ms: MaxDecode = None,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option(help="the study folder; runs/NAME by default", show_default=False)] = None,
    bank: StudyBank = None,
    workers: Workers = None,
    fresh: Fresh = False,
    adopt: Adopt = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the expected cost and stop")] = False,
    as_json: Json = False,
) -> None:
    """Search for the plan with the least loss within a budget; the same command resumes after an interruption."""
    flags: dict[str, Any] = {"model": model, "data": data, "target": target, "budget": budget}
    flags |= {"trials": trials, "timeout": timeout, "until": until, "patience": patience}
    flags |= {"sampler": sampler, "latency": latency, "max_decode_ms": max_decode_ms, "seed": seed}
    study_file = study_of(study, flags)
    folder = expanded(out or Path("runs") / (study.stem if study else Path(study_file.model).name))
    if dry_run:
        cost = forecast(with_an_end(study_file), folder)
        return print_json(asdict(cost)) if as_json else print_lines(words.of_search(cost))
    run_search(study_file, folder, bank, workers, fresh=fresh, adopt=adopt)
    return print_outcome(folder, as_json=as_json)


def status(folder: Folder, as_json: Json = False) -> None:
    """Show the progress of a study and its best plan so far."""
    print_outcome(folder, as_json=as_json)


def report(folder: Folder) -> None:
    """Rewrite the reports and pictures of a study."""
    print(f"wrote {paredown.report(folder)}")


def select(
    folder: Folder,
    budget: Annotated[str, typer.Option(help="45% of the original, 3.5GB or 4.25bpw", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="the plan file; FOLDER/select/BUDGET.yaml by default", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a plan for another budget from what a study measured; scores nothing, takes seconds."""
    found = paredown.select(folder, budget, out)
    written = found.plan_file.model_dump(mode="json", exclude_none=True)
    return print_json(written) if as_json else print_lines(words.of_selection(found))


def transfer(
    plan: Annotated[Path, typer.Argument(help="the plan file of another model of the family", show_default=False)],
    model: Model = None,
    study: Annotated[
        Path | None, typer.Option(help="a study file of the model; flags override it", show_default=False)
    ] = None,
    data: Data = None,
    target: Target = None,
    budget: Annotated[
        str | None,
        typer.Option(help="45%, 3.5GB or 4.25bpw; the plan's bytes per parameter by default", show_default=False),
    ] = None,
    trials: Annotated[int, typer.Option(min=0, help="moves of bytes between sites to measure")] = 8,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option(help="the plan file; runs/transfer/NAME.yaml by default", show_default=False)
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(help="folder of compressed sites; a temporary one by default", show_default=False)
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Transfer a plan to another model of its family: adapt it, and compare it there with uniform plans."""
    from paredown.cli.progress import telling

    study_file = study_of(study, {"model": model, "data": data, "target": target, "budget": budget, "seed": seed})
    path = out or Path("runs") / "transfer" / f"{Path(study_file.model).name}.yaml"
    with telling(Console(stderr=True)) as progress:
        found = paredown.transfer(plan, study_file, path, trials=trials, bank=bank, workers=workers, progress=progress)
    written = found.plan_file.model_dump(mode="json", exclude_none=True)
    return print_json(written) if as_json else print_lines(words.of_transfer(found))


def bank(
    folder: Annotated[
        Path, typer.Argument(help="a bank folder, or the study folder that contains it", show_default=False)
    ],
    clean: Annotated[
        bool, typer.Option("--clean", help="count what can be removed: files that no search can use again")
    ] = False,
    keep: Annotated[
        list[Path] | None,
        typer.Option(
            help="study folder to keep, may be repeated; files that no kept study needs can be removed too",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove what --clean counts")] = False,
    as_json: Json = False,
) -> None:
    """Show what a bank of compressed sites holds; --clean finds files that are no longer needed."""
    if not clean and (yes or keep):
        raise StudyError("--keep and --yes apply only with --clean; add --clean")
    if clean:
        freed = paredown.clean_bank(folder, keep or (), dry_run=not yes)
        return print_json(asdict(freed)) if as_json else print_lines(words.of_cleaning(freed))
    found = paredown.bank(folder)
    return print_json(asdict(found)) if as_json else print_lines(words.of_bank(found))


def dashboard(
    folder: Folder,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    allow_edits: Annotated[
        bool, typer.Option("--allow-edits", help="let the page change and delete the study")
    ] = False,
) -> None:
    """Serve Optuna's dashboard of a study, on this machine only."""
    paredown.dashboard(
        folder,
        port,
        allow_edits=allow_edits,
        ready=lambda: print(f"http://127.0.0.1:{port}/ (Ctrl+C ends it)", flush=True),
    )


def demo(
    study: Annotated[
        Path | None, typer.Option(help="the study file; studies/demo.yaml by default", show_default=False)
    ] = None,
    trials: Trials = None,
    timeout: Timeout = None,
    budget: BudgetText = None,
    out: Annotated[Path, typer.Option(help="the study folder")] = Path("runs/demo"),
) -> None:
    """Search, apply and verify with the model that comes with the project."""
    study_file, out = demo_study(study, {"trials": trials, "timeout": timeout, "budget": budget}), expanded(out)
    run_search(study_file, out)
    applied, verified = paredown.apply(out / "best" / "plan.yaml", study_file.model, out / "model")
    print_outcome(out, as_json=False)
    print(
        f"wrote {out / 'model'}: {applied.size_bytes:,} tensor bytes, as predicted; "
        f"the original has {applied.original_bytes:,}"
    )
    print_lines(words.of_verification(verified) if verified else [])
    print(f"open {out / 'report.html'}; try: paredown generate {out / 'model'} 'def main(' --tokens 60")


def run_search(
    study_file: StudyFile,
    folder: Path,
    bank: Path | None = None,
    workers: int | None = None,
    *,
    fresh: bool = False,
    adopt: bool = False,
) -> None:
    """Prints the expected cost, and searches with progress on standard error."""
    from paredown.cli.progress import telling

    signals.name_best(folder / "best" / "plan.yaml")
    for line in words.of_search(survey_study(with_an_end(study_file))):
        note(line)
    with telling(Console(stderr=True)) as progress:
        paredown.find_plan(
            study_file,
            folder,
            progress=progress,
            bank=bank,
            workers=workers,
            fresh=fresh,
            adopt=adopt,
            began=process_began(),
        )
