"""Commands on models and files: each parses its options, calls the function of its name, and prints the result."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import paredown
from paredown.cli import wording as words
from paredown.cli.options import Json, Model
from paredown.cli.output import print_json, print_lines
from paredown.space.plan_file import PlanFile
from paredown.streams import note


def inspect(
    model: Annotated[str, typer.Argument(help="a model folder, a hub name, or a study file", show_default=False)],
    target: Annotated[str, typer.Option(help="runtime of the result, such as transformers")] = "paredown",
    budget: Annotated[str, typer.Option(help="45% of the original, 3.5GB or 4.25bpw")] = "45%",
    as_json: Json = False,
) -> None:
    """Show the sites of a model, their choices and bytes, and the cost of a search."""
    found = paredown.inspect(model, target=target, budget=budget)
    return print_json(asdict(found)) if as_json else print_lines(words.of_inspection(found))


def validate(
    file: Annotated[Path, typer.Argument(help="a plan or a study file", show_default=False)], model: Model = None
) -> None:
    """Check a plan or study file, on its own or against a model."""
    found = paredown.validate(file, model)
    kind = "plan" if isinstance(found, PlanFile) else "study"
    print(f"{file} is a valid {kind}" + (f" and fits {model}" if model else ""))


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
