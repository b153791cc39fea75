"""The parts that benchmarks on a problem file share: arguments, workbench and bank."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import paredown  # noqa: F401 - registers the methods
from paredown.search.workbench.workbench import Workbench
from paredown.space.space import Space
from paredown.space.study_file import StudyFile


def problem_parser(text: str | None) -> argparse.ArgumentParser:
    """A parser of the arguments that name a problem; other arguments may be added."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", type=Path, help="a study file")
    parser.add_argument("--model", help="model, in place of the file's")
    parser.add_argument("--data", nargs="+", help="texts, in place of the file's")
    parser.add_argument("--sensitivity", help="estimator, in place of the file's")
    return parser


def opened(options: argparse.Namespace, folder: Path) -> Workbench:
    """The problem's workbench with a filled bank; sets torch to one thread."""
    torch.set_num_threads(1)
    changes = {key: value for key in ("model", "data", "sensitivity") if (value := getattr(options, key))}
    bench = Workbench.open(StudyFile.read(options.problem).model_copy(update=changes), folder / "bank")
    bench.fill_bank()
    return bench


def front_path(problem: Path) -> Path:
    """Path of a problem's best front."""
    return problem.with_suffix(".front.json")


def budget_of(space: Space, bits: float) -> str:
    """The budget that leaves ``bits`` stored bits per weight of the linear layers, scales counted.

    All other sites take their smallest choice.
    """
    linear = [site for site in space.inventory.leaves if site.kind == "linear"]
    weights = sum(member.parameters for site in linear for member in site.members)
    others = [site for site in space.inventory.leaves if site.kind != "linear"]
    fixed = space.inventory.rest_bytes + sum(min(space.sizes(site)) for site in others)
    return f"{fixed + int(bits * weights / 8)}B"
