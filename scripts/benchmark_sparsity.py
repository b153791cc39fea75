"""One pruning algorithm, three ways to spread the same bytes: uniform, by outliers as OWL does, and by paredown's search.

    OMP_NUM_THREADS=1 python scripts/benchmark_sparsity.py --out runs/benchmark-sparsity

The algorithm is the one whose uniform plan loses least on the search set. The budget is the size of the uniform plan, to the byte. OWL's
two knobs are tuned on the search set. The search may take, at each matrix, any sparsity of a grid or keep it; of the plans that lose least
on the search set the one that loses least on the selection set counts. Losses are of the held-out documents; intervals are over
documents, paired. Exits 1 where the searched plan loses more than a rival.

Source of the rival: Yin et al., 2023, "Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to High
Sparsity", arXiv 2310.05175.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from model_options import model_parser, tokens_asked

import paredown  # noqa: F401 - registers the methods
from paredown.evaluators.comparison import ratio
from paredown.evaluators.quality import Quality
from paredown.search.contest import Contest, Task
from paredown.search.workbench import Workbench, environment
from paredown.space.choice import Choice, parse_choice
from paredown.space.plan import Plan
from paredown.space.study_file import SpaceFile, StudyFile, Tokens

ALGORITHMS = ("magnitude", "wanda", "sparsegpt")
GRID = [round(0.05 * step, 2) for step in range(2, 20)]
MULTIPLES, WIDTHS = (5.0, 3.0, 7.0, 10.0), (0.08, 0.02, 0.04, 0.12)
"""OWL's M and lambda, its authors' usual ones first."""

FINALISTS = 4
STEPS = 30


def prune(sparsity: float, algorithm: str) -> Choice:
    """The choice whose grid, here, is all that varies."""
    return parse_choice({"method": "prune", "sparsity": sparsity, "algorithm": algorithm})


def study(options: argparse.Namespace, seed: int, algorithm: str) -> StudyFile:
    """Prune choices for every matrix of the blocks; the embedding is kept."""
    offered = ["keep", *(str(prune(sparsity, algorithm)) for sparsity in GRID)]
    space = SpaceFile(
        choices={"linear": offered, "embedding": ["keep"], "ffn": [], "attention": [], "block": []}, max_drops=0
    )
    return StudyFile(
        model=options.model, data=options.data, latency="off", tokens=tokens_asked(options), seed=seed, space=space
    )


def spread(bench: Workbench, algorithm: str, sparsity_of: Callable[[int], float]) -> Plan:
    """The plan that prunes all matrices of a block to its sparsity."""
    sites = [site for site in bench.space.inventory.leaves if site.kind == "linear" and site.block is not None]
    return Plan.of(bench.space.inventory, {site.name: prune(sparsity_of(site.block or 0), algorithm) for site in sites})


def outlier_ratios(bench: Workbench, multiple: float) -> torch.Tensor:
    """Share of the weights of each block whose product with the norm of their input is above so many times the block's mean."""
    scores: dict[int, list[torch.Tensor]] = {}
    for site in bench.space.inventory.leaves:
        for member in site.members if site.kind == "linear" and site.block is not None else ():
            weight = bench.bank.parameters[f"{member.module}.weight"].float().abs()
            norm = bench.statistics[member.module]["second_moment"].diagonal().clamp(min=0).sqrt()
            scores.setdefault(site.block or 0, []).append(
                ((weight.T if member.transposed else weight) * norm).flatten()
            )
    together = [torch.cat(scores[block]) for block in sorted(scores)]
    return torch.stack([(score > multiple * score.mean()).float().mean() for score in together])


def owl(bench: Workbench, algorithm: str, sparsity: float, budget: int, multiple: float, width: float) -> Plan:
    """OWL's plan: blocks with more outliers keep more, over a range of twice the width around the mean that fits the budget."""
    found = outlier_ratios(bench, multiple)
    scaled = (found - found.min()) / (found.max() - found.min()).clamp(min=1e-12)
    more = (2 * width * (scaled - scaled.mean())).tolist()

    def plan(extra: float) -> Plan:
        return spread(bench, algorithm, lambda block: min(0.99, max(0.001, sparsity - more[block] + extra)))

    low, high = (
        -0.01,
        0.05,
    )  # rows keep whole numbers of weights: the mean sparsity that comes nearest to the budget's bytes
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if plan(middle).size_bytes(bench.space.inventory) <= budget else (middle, high)
    return plan(high)


def tuned(loss: Callable[[float, float], float]) -> tuple[float, float]:
    """OWL's M at its authors' lambda, then lambda at that M, of least loss."""
    multiple = min(MULTIPLES, key=lambda each: loss(each, WIDTHS[0]))
    return multiple, min(WIDTHS, key=lambda each: loss(multiple, each))


def searched(bench: Workbench, contest: Contest, budget: int, trials: int, seed: int) -> Plan:
    """The plan that the search finds within the bytes."""
    run = contest.run(Task(engine="frontier", evaluations=trials, focus="budget", budget=f"{budget}B", seed=seed))
    fitting = sorted((r for r in run.records if r.whole and r.size_bytes <= budget), key=lambda r: (r.loss, r.number))
    return min((record.plan for record in fitting[:FINALISTS]), key=lambda plan: bench.measure(plan, "selection").mean)


def rows(
    bench: Workbench, contest: Contest, algorithm: str, sparsity: float, trials: int, seed: int
) -> Iterator[tuple[str, Plan]]:
    """The plans of the comparison by name, the searched one last."""
    uniform = spread(bench, algorithm, lambda block: sparsity)
    budget = uniform.size_bytes(bench.space.inventory)
    yield "uniform", uniform
    multiple, width = tuned(lambda *knobs: bench.measure(owl(bench, algorithm, sparsity, budget, *knobs)).mean)
    yield f"OWL, M {multiple:g}, lambda {width:g}", owl(bench, algorithm, sparsity, budget, multiple, width)
    yield "paredown", searched(bench, contest, budget, trials, seed)


def best_algorithm(bench: Workbench, sparsity: float) -> str:
    """Whose uniform plan loses least on the search set."""
    losses = {name: bench.measure(spread(bench, name, lambda block: sparsity)).mean for name in ALGORITHMS}
    print(
        f"uniform {sparsity:.0%} on the search set: "
        + ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items()),
        flush=True,
    )
    return min(losses, key=losses.__getitem__)


def main() -> int:
    parser = model_parser(__doc__, Tokens(search=4096, selection=8192, held_out=32768))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-sparsity"), help="the bank, found again")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.5, 0.7])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = environment()
    print(f"{options.model}, target paredown, embedding kept; {machine['cpu']}, 1 thread, torch {machine['torch']}")
    print(
        f"tokens: {study(options, 0, 'magnitude').tokens}; {options.trials} trials, sensitivities counted; grid of sparsities 0, {GRID}"
    )
    failures = 0
    for seed in options.seeds:
        bench = Workbench(study(options, seed, "sparsegpt"), options.out / "bank", 1)
        algorithm = best_algorithm(bench, options.sparsity[0])
        if algorithm != "sparsegpt":
            bench = Workbench(study(options, seed, algorithm), options.out / "bank", 1)
        bench.fill_bank()
        contest = Contest(bench)
        for sparsity in options.sparsity:
            started = time.monotonic()
            print(f"\n{algorithm}, {sparsity:.0%}, seed {seed}; loss in nats/token\n")
            print(
                "| plan | bytes | held-out loss | over uniform, 95 % | over OWL, 95 % |\n| --- | --- | --- | --- | --- |",
                flush=True,
            )
            before: list[Quality] = []
            for name, plan in rows(bench, contest, algorithm, sparsity, options.trials, seed):
                quality = bench.measure(plan, "held-out")
                ratios = [ratio(quality, other, seed=seed) for other in before]
                cells = [f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]" for found in ratios] + [""] * (
                    2 - len(ratios)
                )
                print(
                    f"| {name} | {plan.size_bytes(bench.space.inventory):,} | {quality.mean:.5f} | {' | '.join(cells)} |",
                    flush=True,
                )
                before.append(quality)
            failures += any(found.mean > 1 for found in ratios)
            print(f"\n{time.monotonic() - started:.0f} s")
    print(f"\nthe searched plan loses more than a rival in {failures} of {len(options.seeds) * len(options.sparsity)}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
