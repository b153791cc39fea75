"""The command line: each command parses its options, calls the function of the same name, and prints the result."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import paredown
from paredown import signals
from paredown.cli import wording as words
from paredown.entry import note
from paredown.inspection import forecast, survey_study
from paredown.question import demo_question, question_of, with_an_end
from paredown.search.report.verdict import summary_lines
from paredown.search.trials.clock import process_began
from paredown.search.trials.counts import UNIT
from paredown.space.errors import StudyError
from paredown.space.plan_file import PlanFile
from paredown.space.study_file import StudyFile
from paredown.space.system.paths import expanded

app = typer.Typer(
    name="paredown",
    help="Pare a transformer down to the size you have.",
    no_args_is_help=True,
    epilog="Exit codes: 0 done; 2 bad input, a full disk or too little memory; 3 no plan meets the budget; 70 a bug; "
    "130 stopped.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TRIALS = f"at most this many {UNIT}; fewer if expected gains fall below the noise (--patience)"

Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Folder = Annotated[Path, typer.Argument(help="the study folder", show_default=False)]
Target = Annotated[str | None, typer.Option(help="transformers or paredown (default)", show_default=False)]
BudgetText = Annotated[str | None, typer.Option(help="45% of the original, 3.5GB or 4.25bpw", show_default=False)]
Model = Annotated[str | None, typer.Option(help="the original: a folder or a hub name", show_default=False)]
Data = Annotated[
    list[str] | None, typer.Option(help="text files, folders, hub:NAME, or stdlib; may be repeated", show_default=False)
]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        print(paredown.__version__)
        raise typer.Exit


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="a model folder, a hub name, or a study file", show_default=False)],
    target: Annotated[str, typer.Option(help="transformers or paredown")] = "paredown",
    budget: Annotated[str, typer.Option(help="45% of the original, 3.5GB or 4.25bpw")] = "45%",
    as_json: Json = False,
) -> None:
    """Show the sites of a model, their choices and bytes, and the cost of a search."""
    found = paredown.inspect(model, target=target, budget=budget)
    return print_json(asdict(found)) if as_json else print_lines(words.of_inspection(found))


@app.command()
def search(
    study: Annotated[Path | None, typer.Argument(help="a study file; flags override it", show_default=False)] = None,
    model: Model = None,
    data: Data = None,
    target: Target = None,
    budget: BudgetText = None,
    trials: Annotated[int | None, typer.Option(min=1, help=TRIALS, show_default=False)] = None,
    timeout: Annotated[
        str | None,
        typer.Option(help="time limit of the whole run: 45m, 1h30m, 90s, or a number of seconds", show_default=False),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="time of day at which the run ends, HH:MM", show_default=False)
    ] = None,
    patience: Annotated[
        str | None,
        typer.Option(
            help="end the trials when gains fall below the noise (auto), after N without a better plan, or never (off)",
            show_default=False,
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="frontier (default), evopress, amq, tpe, nsga2, nsga3, gp, random", show_default=False),
    ] = None,
    latency: Annotated[
        str | None, typer.Option(help="measure (default), off, or the file of a latency table", show_default=False)
    ] = None,
    max_decode_ms: Annotated[
        float | None,
        typer.Option(help="upper bound on the predicted time of a decoded token, in ms", show_default=False),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="the study folder; runs/NAME by default", show_default=False)] = None,
    bank: Annotated[
        Path | None, typer.Option(help="folder of compressed sites; OUT/bank by default", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="processes that fill the bank, threads of in-order passes; one per core", show_default=False
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="if model, texts or libraries changed: move OUT aside and start over")
    ] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="instead of --fresh: resume with the existing trials and record the change")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the expected cost and stop")] = False,
    as_json: Json = False,
) -> None:
    """Search for the plan with the least loss within a budget; the same command resumes after an interruption."""
    flags: dict[str, Any] = {
        "model": model,
        "data": data,
        "target": target,
        "budget": budget,
        "trials": trials,
        "timeout": timeout,
        "until": until,
    }
    flags |= {
        "patience": patience,
        "sampler": sampler,
        "latency": latency,
        "max_decode_ms": max_decode_ms,
        "seed": seed,
    }
    question = question_of(study, flags)
    folder = expanded(out or Path("runs") / (study.stem if study else Path(question.model).name))
    if dry_run:
        cost = forecast(with_an_end(question), folder)
        return print_json(asdict(cost)) if as_json else print_lines(words.of_search(cost))
    run_search(question, folder, bank, workers, fresh=fresh, adopt=adopt)
    return (
        print((folder / "front.json").read_text())
        if as_json
        else print_lines(summary_lines(paredown.status(folder), folder))
    )


@app.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """Show the progress of a study and its best plan so far."""
    outcome, folder = paredown.status(folder), expanded(folder)
    return print((folder / "front.json").read_text()) if as_json else print_lines(summary_lines(outcome, folder))


@app.command()
def report(folder: Folder) -> None:
    """Rewrite the reports and pictures of a study."""
    print(f"wrote {paredown.report(folder)}")


@app.command()
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


@app.command()
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
    seed: Annotated[int | None, typer.Option(min=0, show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="the plan file; runs/transfer/NAME.yaml by default", show_default=False)
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(help="folder of compressed sites; a temporary one by default", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="processes that fill the bank, threads of in-order passes; one per core", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Transfer a plan to another model of its family: adapt it, and compare it there with uniform plans."""
    from paredown.cli.progress import telling

    question = question_of(study, {"model": model, "data": data, "target": target, "budget": budget, "seed": seed})
    path = out or Path("runs") / "transfer" / f"{Path(question.model).name}.yaml"
    with telling(Console(stderr=True)) as progress:
        found = paredown.transfer(plan, question, path, trials=trials, bank=bank, workers=workers, progress=progress)
    written = found.plan_file.model_dump(mode="json", exclude_none=True)
    return print_json(written) if as_json else print_lines(words.of_transfer(found))


@app.command()
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


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="a plan or a study file", show_default=False)], model: Model = None
) -> None:
    """Check a plan or study file, on its own or against a model."""
    found = paredown.validate(file, model)
    kind = "plan" if isinstance(found, PlanFile) else "study"
    print(f"{file} is a valid {kind}" + (f" and fits {model}" if model else ""))


@app.command()
def apply(
    plan: Annotated[Path, typer.Argument(help="the plan file", show_default=False)],
    model: Annotated[str, typer.Option(help="the original or a fine-tune of it", show_default=False)],
    out: Annotated[Path, typer.Option(help="the folder to write", show_default=False)],
    bank: Annotated[
        Path | None, typer.Option(help="folder of compressed sites; the study's own by default", show_default=False)
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="calibration texts; the plan's own by default", show_default=False)
    ] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="do not verify the model in a fresh process")] = False,
    as_json: Json = False,
) -> None:
    """Write the compressed model and verify it in a fresh process."""
    applied, verified = paredown.apply(plan, model, out, check=not no_verify, bank=bank, data=data, say=note)
    if as_json:
        return print_json({"applied": asdict(applied), "verified": asdict(verified) if verified else None})
    return print_lines(words.of_application(applied, verified, out))


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="a compressed folder, or any model", show_default=False)],
    data: Annotated[
        list[str], typer.Option(help="text files, folders, hub:NAME, or stdlib; may be repeated", show_default=False)
    ],
    original: Annotated[str | None, typer.Option(help="compare with this model", show_default=False)] = None,
    tokens: Annotated[int, typer.Option(min=128, help="number of tokens to read")] = 32768,
    as_json: Json = False,
) -> None:
    """Measure the perplexity of a model and its distance from the original."""
    found = paredown.evaluate(model, data, original=original, tokens=tokens)
    return print_json(asdict(found)) if as_json else print_lines(words.of_evaluation(found, data, original))


@app.command()
def generate(
    folder: Annotated[Path, typer.Argument(help="a compressed model", show_default=False)],
    prompt: Annotated[str, typer.Argument(help="start of the text", show_default=False)],
    tokens: Annotated[int, typer.Option(min=1, help="largest number of tokens to add")] = 100,
    seed: Annotated[
        int | None,
        typer.Option(help="sample at random; without a seed the likeliest token is taken", show_default=False),
    ] = None,
) -> None:
    """Continue a text with a compressed model."""
    print(paredown.generate(folder, prompt, tokens=tokens, seed=seed))


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="a compressed model", show_default=False)],
    original: Annotated[str, typer.Option(help="the model that the plan was applied to", show_default=False)],
    bank: Annotated[
        Path | None, typer.Option(help="folder of compressed sites that the model was made from", show_default=False)
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="calibration texts, if apply was given any", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Check bytes, keys, logits and cached decoding in a fresh process."""
    found = paredown.verify(folder, original, bank=bank, data=data, say=note)
    return print_json(asdict(found)) if as_json else print_lines(words.of_verification(found))


@app.command()
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


@app.command()
def demo(
    study: Annotated[
        Path | None, typer.Option(help="the study file; studies/demo.yaml by default", show_default=False)
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help=TRIALS, show_default=False)] = None,
    budget: BudgetText = None,
    out: Annotated[Path, typer.Option(help="the study folder")] = Path("runs/demo"),
) -> None:
    """Search, apply and verify with the model that comes with the project."""
    question, out = demo_question(study, {"trials": trials, "budget": budget}), expanded(out)
    run_search(question, out)
    applied, verified = paredown.apply(out / "best" / "plan.yaml", question.model, out / "model")
    print_lines(summary_lines(paredown.status(out), out))
    print(
        f"wrote {out / 'model'}: {applied.size_bytes:,} tensor bytes, as predicted; "
        f"the original has {applied.original_bytes:,}"
    )
    print_lines(words.of_verification(verified) if verified else [])
    print(f"open {out / 'report.html'}; try: paredown generate {out / 'model'} 'def main(' --tokens 60")


# -- shared by the commands -----------------------------------------------------------------------------


def run_search(
    question: StudyFile,
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
    for line in words.of_search(survey_study(with_an_end(question))):
        note(line)
    with telling(Console(stderr=True)) as progress:
        paredown.find_plan(
            question,
            folder,
            progress=progress,
            bank=bank,
            workers=workers,
            fresh=fresh,
            adopt=adopt,
            began=process_began(),
        )


def print_json(value: Any) -> None:
    """Prints a value as JSON on standard output."""
    print(json.dumps(value, indent=1, default=str))


def print_lines(lines: Iterable[str]) -> None:
    """Prints lines on standard output."""
    for line in lines:
        print(line)
