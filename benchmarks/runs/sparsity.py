"""One pruning algorithm, three distributions of the same bytes: uniform, by outliers (OWL), by paredown's search.

    OMP_NUM_THREADS=1 python -m benchmarks.runs.sparsity --out runs/benchmark-sparsity

The algorithm is the one whose uniform plan has the lowest loss on the search set. The budget is the uniform plan's
size to the byte. OWL's two parameters are tuned on the search set. The search chooses for each matrix a sparsity of a
grid, or keeps it; of its best plans on the search set, the best on the selection set counts. Losses are held-out;
intervals are paired, over documents. Exits 1 if the searched plan loses more than a rival.

Source of the rival: Yin et al., 2023, "Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning
LLMs to High Sparsity", arXiv 2310.05175.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import paredown  # noqa: F401 - registers the methods
from benchmarks.contest import Contest, Task
from benchmarks.model_options import model_parser, tokens_asked
from paredown.evaluators.comparison import ratio
from paredown.evaluators.quality import Quality
from paredown.search.workbench.environment import environment
from paredown.search.workbench.workbench import Workbench
from paredown.space.choice import Choice, parse_choice
from paredown.space.plan import Plan
from paredown.space.study_file import SpaceFile, StudyFile, Tokens

ALGORITHMS = ("magnitude", "wanda", "sparsegpt")
GRID = [round(0.05 * step, 2) for step in range(2, 20)]
MULTIPLES, WIDTHS = (5.0, 3.0, 7.0, 10.0), (0.08, 0.02, 0.04, 0.12)
"""Candidates for OWL's M and lambda, its authors' usual values first."""

FINALISTS = 4
"""Best plans on the search set that the selection set chooses from."""

STEPS = 30
"""Bisection steps for the mean sparsity of an OWL plan."""


def prune(sparsity: float, algorithm: str) -> Choice:
    """The prune choice of a sparsity."""
    return parse_choice({"method": "prune", "sparsity": sparsity, "algorithm": algorithm})


def study(options: argparse.Namespace, seed: int, algorithm: str) -> StudyFile:
    """The study: prune choices for every matrix of the blocks; the embedding is kept."""
    offered: list[str | dict[str, Any]] = ["keep", *(str(prune(sparsity, algorithm)) for sparsity in GRID)]
    space = SpaceFile(
        choices={"linear": offered, "embedding": ["keep"], "ffn": [], "attention": [], "block": []}, max_drops=0
    )
    return StudyFile(
        model=options.model, data=options.data, latency="off", tokens=tokens_asked(options), seed=seed, space=space
    )


def spread(bench: Workbench, algorithm: str, sparsity_of: Callable[[int], float]) -> Plan:
    """The plan that prunes all matrices of a block to the block's sparsity."""
    sites = [site for site in bench.space.inventory.leaves if site.kind == "linear" and site.block is not None]
    return Plan.of(bench.space.inventory, {site.name: prune(sparsity_of(site.block or 0), algorithm) for site in sites})


def outlier_ratios(bench: Workbench, multiple: float) -> torch.Tensor:
    """Outlier share of each block: weights whose |w| times input norm exceeds ``multiple`` times the block's mean."""
    scores: dict[int, list[torch.Tensor]] = {}
    for site in bench.space.inventory.leaves:
        for member in site.members if site.kind == "linear" and site.block is not None else ():
            weight = bench.bank.parameters[f"{member.module}.weight"].float().abs()
            norm = bench.bank.statistics[member.module]["second_moment"].diagonal().clamp(min=0).sqrt()
            scores.setdefault(site.block or 0, []).append(
                ((weight.T if member.transposed else weight) * norm).flatten()
            )
    together = [torch.cat(scores[block]) for block in sorted(scores)]
    return torch.stack([(score > multiple * score.mean()).float().mean() for score in together])


def owl(bench: Workbench, algorithm: str, sparsity: float, budget: int, multiple: float, width: float) -> Plan:
    """OWL's plan within the budget: blocks with more outliers keep more weights, over a range of twice ``width``."""
    found = outlier_ratios(bench, multiple)
    scaled = (found - found.min()) / (found.max() - found.min()).clamp(min=1e-12)
    more = (2 * width * (scaled - scaled.mean())).tolist()

    def plan(extra: float) -> Plan:
        return spread(bench, algorithm, lambda block: min(0.99, max(0.001, sparsity - more[block] + extra)))

    # Rows keep whole numbers of weights, so the mean sparsity that just fits the budget is found by bisection.
    low, high = -0.01, 0.05
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if plan(middle).size_bytes(bench.space.inventory) <= budget else (middle, high)
    return plan(high)


def tuned(loss: Callable[[float, float], float]) -> tuple[float, float]:
    """OWL's M with the lowest loss at its authors' lambda, then the lambda with the lowest loss at that M."""
    multiple = min(MULTIPLES, key=lambda each: loss(each, WIDTHS[0]))
    return multiple, min(WIDTHS, key=lambda each: loss(multiple, each))


def searched(bench: Workbench, contest: Contest, budget: int, trials: int, seed: int) -> Plan:
    """The search's plan within the budget [bytes]."""
    run = contest.run(Task(engine="frontier", evaluations=trials, focus="budget", budget=f"{budget}B", seed=seed))
    fitting = sorted(
        (r for r in run.trials if r.read.whole and r.size_bytes <= budget), key=lambda r: (r.loss, r.number)
    )
    return min(
        (trial.plan for trial in fitting[:FINALISTS]), key=lambda plan: bench.evaluator.measure(plan, "selection").mean
    )


def rows(
    bench: Workbench, contest: Contest, algorithm: str, sparsity: float, trials: int, seed: int
) -> Iterator[tuple[str, Plan]]:
    """The compared plans with their names, the searched plan last."""
    uniform = spread(bench, algorithm, lambda block: sparsity)
    budget = uniform.size_bytes(bench.space.inventory)
    yield "uniform", uniform
    multiple, width = tuned(
        lambda *knobs: bench.evaluator.measure(owl(bench, algorithm, sparsity, budget, *knobs)).mean
    )
    yield f"OWL, M {multiple:g}, lambda {width:g}", owl(bench, algorithm, sparsity, budget, multiple, width)
    yield "paredown", searched(bench, contest, budget, trials, seed)


def best_algorithm(bench: Workbench, sparsity: float) -> str:
    """The algorithm whose uniform plan has the lowest loss on the search set."""
    losses = {name: bench.evaluator.measure(spread(bench, name, lambda block: sparsity)).mean for name in ALGORITHMS}
    print(
        f"uniform {sparsity:.0%} on the search set: "
        + ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items()),
        flush=True,
    )
    return min(losses, key=losses.__getitem__)


def main() -> int:
    parser = model_parser(__doc__, Tokens(search=4096, selection=8192, held_out=32768))
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmark-sparsity"), help="folder of the bank, which later runs reuse"
    )
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.5, 0.7])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = environment()
    print(f"{options.model}, target paredown, embedding kept; {machine['cpu']}, 1 thread, torch {machine['torch']}")
    print(
        f"tokens: {study(options, 0, 'magnitude').tokens}; {options.trials} trials, sensitivities counted; "
        f"grid of sparsities 0, {GRID}"
    )
    failures = 0
    for seed in options.seeds:
        bench = Workbench.open(study(options, seed, "sparsegpt"), options.out / "bank", 1)
        algorithm = best_algorithm(bench, options.sparsity[0])
        if algorithm != "sparsegpt":
            bench = Workbench.open(study(options, seed, algorithm), options.out / "bank", 1)
        bench.fill_bank()
        contest = Contest(bench)
        for sparsity in options.sparsity:
            started = time.monotonic()
            print(f"\n{algorithm}, {sparsity:.0%}, seed {seed}; loss in nats/token\n")
            print(
                "| plan | bytes | held-out loss | / uniform, 95 % | / OWL, 95 % |\n| --- | --- | --- | --- | --- |",
                flush=True,
            )
            before: list[Quality] = []
            for name, plan in rows(bench, contest, algorithm, sparsity, options.trials, seed):
                quality = bench.evaluator.measure(plan, "held-out")
                ratios = [ratio(quality, other, seed=seed) for other in before]
                cells = [f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]" for found in ratios] + [""] * (
                    2 - len(ratios)
                )
                size = f"{plan.size_bytes(bench.space.inventory):,}"
                print(f"| {name} | {size} | {quality.mean:.5f} | {' | '.join(cells)} |", flush=True)
                before.append(quality)
            failures += any(found.mean > 1 for found in ratios)
            print(f"\n{time.monotonic() - started:.0f} s")
    print(f"\nthe searched plan loses more than a rival in {failures} of {len(options.seeds) * len(options.sparsity)}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
