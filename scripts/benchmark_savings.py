"""Bytes that a search saves at equal held-out loss, against uniform plans and against allocations by gradient scores.

    OMP_NUM_THREADS=1 python scripts/benchmark_savings.py studies/problems/savings.yaml --runs runs/savings

The rivals at B bits: uniform plans of B-bit codes in groups of 32, 64 and 128 (at 2.5 bits, 2-bit codes), of which the one counts
that the search saves least against on the search set, the smallest plan of the space left out; and the solver's plans for B stored
bits a weight under gradient scores, each of which is a knapsack over (site, choice) as AutoScheme and ModelOpt make it, of which the
one counts that is best on the search set. All take the same rounding and the same records. The search's front is measured on the
held-out texts around each rival's loss; between its plans the logarithm of the loss is linear in bytes. Intervals are over held-out
documents.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from problem import budget_of, opened, problem_parser

from paredown.evaluators.comparison import Saving, saving
from paredown.search.contest import Contest, Run, Task
from paredown.search.evidence import Evidence
from paredown.search.facts import facts_of
from paredown.search.sensitivity import estimated
from paredown.search.uniform import GROUPS, uniform_plan
from paredown.search.workbench import environment
from paredown.space.budget import Budget
from paredown.space.choice import KEEP
from paredown.space.plan import Plan

AROUND = 2
"""Plans of the front on either side of a rival's loss that are measured on the held-out texts."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A plan that was made without a search.

    Attributes:
        name: How it was made.
        plan: What it takes.
        size_bytes: Of its tensors.
    """

    name: str
    plan: Plan
    size_bytes: int


def main() -> int:
    parser = problem_parser(__doc__)
    parser.add_argument("--bits", nargs="+", type=float, default=[2.5, 3, 4, 5])
    parser.add_argument("--scores", nargs="+", default=["gradient", "autoscheme", "fisher"], help="gradient scores")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluations", type=int, default=100, help="what a search may cost, sensitivities included")
    parser.add_argument("--runs", type=Path, help="where runs are kept; by default none is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        bench = opened(options, options.runs or Path(temporary))
        contest, machine = Contest(bench, options.runs), environment()
        tokens = bench.question.tokens
        print(
            f"{options.problem.name}, {bench.question.model}: {len(bench.space.searched)} sites; {machine['cpu']}, torch {machine['torch']}"
        )
        print(f"{tokens.search} search and {tokens.held_out} held-out tokens; a search costs {options.evaluations} evaluations")
        rivals = {bits: [list(uniform(contest, bits)), [by_scores(contest, options.scores, bits)]] for bits in options.bits}
        runs = [contest.run(task) for task in tasks(bench.question.budget, options)]
        print("\n| bits | rival | bytes | held-out loss | " + " | ".join(f"saved, seed {seed}" for seed in options.seeds) + " |")
        print("| --- | --- | --- | --- |" + " --- |" * len(runs))
        for bits, groups in rivals.items():
            for group in groups:
                rival = max(group, key=lambda each: np.mean([size_of(contest, run, each) / each.size_bytes for run in runs]))
                savings = [saved(contest, run, rival) for run in runs]
                cells = [f"{100 * each.mean:.1f} % [{100 * each.low:.1f}, {100 * each.high:.1f}]" for each in savings]
                loss = contest.fresh(rival.plan).mean
                print(f"| {bits:g} | {rival.name} | {rival.size_bytes:,} | {loss:.5f} | {' | '.join(cells)} |", flush=True)
    return 0


def tasks(budget: str, options: argparse.Namespace) -> Iterator[Task]:
    """The searches."""
    for seed in options.seeds:
        yield Task(engine="frontier", evaluations=options.evaluations, focus="front", budget=budget, seed=seed)


def uniform(contest: Contest, bits: float) -> Iterator[Rival]:
    """Uniform plans with codes of so many bits; one a group size."""
    space = contest.bench.space
    embedding = next((space.options[site.name][0] for site in space.inventory.leaves if site.kind == "embedding"), KEEP)
    for group in GROUPS:
        found = uniform_plan(space, int(bits), group, embedding)
        if found.plan != contest.solver.smallest():
            yield Rival(f"uniform, {found.label}", found.plan, found.size_bytes)


def by_scores(contest: Contest, scores: list[str], bits: float) -> Rival:
    """The best on the search set of the plans that gradient scores make."""
    bench = contest.bench
    budget = Budget.parse(budget_of(bench.space, bits)).bytes_of(0, 0)
    found = []
    for score in scores:
        losses = estimated(score, Evidence(bench.space, bench.planned, bench.bank, bench.sequences["search"], facts_of(bench.bank)))
        plan = contest.solver.solve(losses, budget)
        found.append((contest.measure(plan, None).mean, Rival(f"knapsack by {score}", plan, plan.size_bytes(bench.space.inventory))))
    return min(found, key=lambda pair: pair[0])[1]


def size_of(contest: Contest, run: Run, rival: Rival) -> float:
    """Bytes at which the front of a run comes to a rival's loss, on the search set."""
    sizes, losses = np.array(run.points(run.task.evaluations)).T
    return float(np.interp(-np.log(contest.measure(rival.plan, None).mean), -np.log(losses), sizes))


def saved(contest: Contest, run: Run, rival: Rival) -> Saving:
    """What the front of a run saves against a rival."""
    theirs = contest.measure(rival.plan, None).mean
    points = run.points(run.task.evaluations)
    plans = {(float(record.size_bytes), record.loss): record.plan for record in run.records}
    place = sum(loss > theirs for _, loss in points)
    near = points[max(0, place - AROUND) : place + AROUND]
    front = [(int(point[0]), contest.fresh(plans[point])) for point in near]
    return saving(front, rival.size_bytes, contest.fresh(rival.plan))


if __name__ == "__main__":
    sys.exit(main())
