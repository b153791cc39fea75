"""What the benchmarks on a problem file share: their arguments, and the workbench with its bank."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import paredown  # noqa: F401 - registers the methods
from paredown.search.workbench import Workbench
from paredown.space.space import Space
from paredown.space.study_file import StudyFile
from paredown.space.tensors import total_bytes


def problem_parser(text: str | None) -> argparse.ArgumentParser:
    """A parser of the arguments that name a problem."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", type=Path, help="a study file")
    parser.add_argument("--model", help="another model than the file's")
    parser.add_argument("--data", nargs="+", help="other texts than the file's")
    parser.add_argument("--sensitivity", help="another estimator than the file's")
    return parser


def opened(options: argparse.Namespace, folder: Path) -> Workbench:
    """The problem's workbench, its bank filled; one thread."""
    torch.set_num_threads(1)
    changes = {key: value for key in ("model", "data", "sensitivity") if (value := getattr(options, key))}
    bench = Workbench(StudyFile.read(options.problem).model_copy(update=changes), folder / "bank")
    bench.fill_bank()
    return bench


def front_path(problem: Path) -> Path:
    """Where the best front of a problem lies."""
    return problem.with_suffix(".front.json")


def budget_of(space: Space, bits: float) -> str:
    """The budget that leaves so many stored bits for each weight of the linear layers, scales counted, when all else is at its
    smallest."""
    linear = [site for site in space.inventory.leaves if site.kind == "linear"]
    weights = sum(member.parameters for site in linear for member in site.members)
    others = [site for site in space.inventory.leaves if site.kind != "linear"]
    fixed = total_bytes(space.inventory.rest) + sum(total_bytes(site.rest) for site in space.inventory.parents)
    fixed += sum(min(space.sizes(site)) for site in others)
    return f"{fixed + int(bits * weights / 8)}B"
