"""Bytes that a search saves at equal held-out loss, compared with uniform plans and gradient-score allocations.

    OMP_NUM_THREADS=1 python -m benchmarks.runs.savings studies/problems/savings.yaml --runs runs/savings
    OMP_NUM_THREADS=1 python -m benchmarks.runs.savings studies/problems/savings-all.yaml --runs runs/savings-all

The rivals at B bits, all with the same rounding and the same records:

- uniform: B-bit codes in groups of 32, 64 or 128 (at 2.5 bits, 2-bit codes). The group size with the lowest loss
  relative to the loss that the solver predicts for its own plan of as many bytes;
- knapsack: the solver's plans for B stored bits per weight under gradient scores, as in AutoScheme and ModelOpt. The
  score whose plan is best on the search set.

Two searches run per rival and seed: one at the rival's bytes, and one at the bytes where the first result and the
slope of the solver's front put the rival's loss. Both winners and the rival are measured on the held-out texts.
Between the two winners, the logarithm of the loss is interpolated linearly in bytes. If both lose more than the
rival, a third search gets half a percent more bytes. Intervals are over held-out documents.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.contest import Contest, Task
from benchmarks.problem import budget_of, opened, problem_parser
from benchmarks.saving import Saving, saving
from paredown.search.sensitivity.measurement_cache import facts_of
from paredown.search.sensitivity.measurements import Evidence
from paredown.search.sensitivity.sensitivity import estimated
from paredown.search.trial import Trial
from paredown.search.trials.uniform import GROUPS, uniform_plan
from paredown.search.workbench.environment import environment
from paredown.space.budget import Budget
from paredown.space.choice import KEEP
from paredown.space.plan import Plan

BEYOND = 1.25
"""Factor on the predicted saving of the second search, so that the rival's loss lies between the two."""

ROOM = 1.03
"""Least ratio of a uniform plan's size to the smallest plan of the space; below it there is nothing to save."""

STEP = 0.05
"""Step of the finite difference for the slope of the solver's front [share of the bytes]."""

LEAST = 0.005
"""Least distance of a later search from the rival or from the earlier searches [share of the bytes]."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A plan made without a search.

    Attributes:
        name: Its origin, for the table.
        plan: The plan.
        size_bytes: Tensor bytes.
    """

    name: str
    plan: Plan
    size_bytes: int


def main() -> int:
    parser = problem_parser(__doc__)
    parser.add_argument("--bits", nargs="+", type=float, default=[2.5, 3, 4, 5])
    parser.add_argument("--scores", nargs="+", default=["gradient", "autoscheme", "fisher"], help="gradient scores")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluations", type=int, default=100, help="cost limit of a search, sensitivities included")
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs; by default they are discarded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        bench = opened(options, options.runs or Path(temporary))
        contest, machine = Contest(bench, options.runs), environment()
        tokens = bench.study_file.tokens
        print(
            f"{options.problem.name}, {bench.study_file.model}: {len(bench.space.searched)} sites; "
            f"{machine['cpu']}, torch {machine['torch']}"
        )
        print(
            f"{tokens.search} search and {tokens.held_out} held-out tokens; "
            f"a search costs {options.evaluations} evaluations"
        )
        print(
            "\n| bits | rival | bytes | held-out loss | "
            + " | ".join(f"saved, seed {seed}" for seed in options.seeds)
            + " |"
        )
        print("| --- | --- | --- | --- |" + " --- |" * len(options.seeds))
        for bits in options.bits:
            for rival in (strongest(contest, uniform(contest, bits)), by_scores(contest, options.scores, bits)):
                savings = [saved(contest, rival, options.evaluations, seed) for seed in options.seeds]
                cells = [f"{100 * each.mean:.1f} % [{100 * each.low:.1f}, {100 * each.high:.1f}]" for each in savings]
                loss = contest.fresh(rival.plan).mean
                print(
                    f"| {bits:g} | {rival.name} | {rival.size_bytes:,} | {loss:.5f} | {' | '.join(cells)} |", flush=True
                )
    return 0


def uniform(contest: Contest, bits: float) -> Iterator[Rival]:
    """Uniform plans of a bit-width, one per group size."""
    space = contest.bench.space
    embedding = next((space.options[site.name][0] for site in space.inventory.leaves if site.kind == "embedding"), KEEP)
    for group in GROUPS:
        found = uniform_plan(space, int(bits), group, embedding)
        if found.size_bytes > ROOM * contest.solver.smallest().size_bytes(space.inventory):
            contest.bench.fill_bank([found.plan])
            yield Rival(f"uniform, {found.label}", found.plan, found.size_bytes)


def strongest(contest: Contest, rivals: Iterable[Rival]) -> Rival:
    """The rival with the lowest ratio of its search-set loss to the loss that the solver predicts at its bytes."""
    return min(rivals, key=lambda rival: contest.measure(rival.plan, None).mean / expected(contest, rival.size_bytes))


def by_scores(contest: Contest, scores: list[str], bits: float) -> Rival:
    """The best plan on the search set of the knapsacks under gradient scores."""
    bench = contest.bench
    budget = bench.space.inventory.budget_bytes(Budget.parse(budget_of(bench.space, bits)))
    found = []
    for score in scores:
        losses = estimated(
            score,
            Evidence(bench.space, bench.planned, bench.bank, bench.texts.sequences["search"], facts_of(bench.bank)),
        )
        plan = contest.solver.solve(losses, budget)
        found.append(
            (
                contest.measure(plan, None).mean,
                Rival(f"knapsack by {score}", plan, plan.size_bytes(bench.space.inventory)),
            )
        )
    return min(found, key=lambda pair: pair[0])[1]


def expected(contest: Contest, size_bytes: int) -> float:
    """Predicted loss of the solver's plan: the sum of its sensitivities."""
    plan = contest.solver.solve(contest.losses, size_bytes)
    return sum(contest.losses[site.name, choice] for site, choice in plan.decided(contest.bench.space.inventory))


def saved(contest: Contest, rival: Rival, evaluations: int, seed: int) -> Saving:
    """The saving of the searches relative to a rival."""
    theirs = contest.measure(rival.plan, None).mean
    first = winner(contest, rival.size_bytes, evaluations, seed)
    slope = np.log(expected(contest, rival.size_bytes) / expected(contest, int(rival.size_bytes * (1 + STEP)))) / STEP
    promised = BEYOND * np.log(theirs / first.loss) / slope
    share = promised if abs(promised) > LEAST else LEAST * np.copysign(1, promised)
    smallest = contest.solver.smallest().size_bytes(contest.bench.space.inventory)
    second = winner(contest, max(smallest, int(rival.size_bytes * (1 - share))), evaluations, seed)
    ours, held_out = [first, second], contest.fresh(rival.plan).mean
    if all(contest.fresh(trial.plan).mean > held_out for trial in ours):
        ours.append(winner(contest, int(max(trial.size_bytes for trial in ours) * (1 + LEAST)), evaluations, seed))
    return saving(
        [(trial.size_bytes, contest.fresh(trial.plan)) for trial in ours],
        rival.size_bytes,
        contest.fresh(rival.plan),
    )


def winner(contest: Contest, size_bytes: int, evaluations: int, seed: int) -> Trial:
    """The best trial of a search within the bytes."""
    task = Task(engine="frontier", evaluations=evaluations, focus="budget", budget=f"{size_bytes}B", seed=seed)
    found = contest.run(task).best(evaluations, size_bytes)
    if found is None:
        raise SystemExit(f"the search found no plan within {size_bytes} bytes; give more --evaluations")
    return found


if __name__ == "__main__":
    sys.exit(main())
