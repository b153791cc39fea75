"""One search over all techniques compared with one search per technique, at equal cost.

    OMP_NUM_THREADS=1 python -m benchmarks.runs.joint studies/problems/joint.yaml --runs runs/joint

A technique is the first step of a choice (`prune` then `quantize` is pruning), or everything that is dropped. Sites
that a technique does not change are kept. At each budget, the joint search's best plan on the search set is compared
on held-out texts with the best plan of all single-technique searches and with the solver's plan from the
sensitivities alone. So is the plan that `select` returns after the joint search. Comparisons are paired, with 95 %
intervals over documents. The budgets are spaced evenly by ratio, from the smallest plan of any one technique to twice
the problem's budget, where the joint search ends.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.contest import Contest, Run, Task
from benchmarks.problem import opened, problem_parser
from paredown.evaluators.comparison import Ratio, ratio
from paredown.search.workbench.environment import environment
from paredown.search.workbench.workbench import Workbench
from paredown.space.choice import KEEP, Choice, parse_choice
from paredown.space.study_file import StudyFile


def main() -> int:
    parser = problem_parser(__doc__)
    parser.add_argument(
        "--evaluations", type=int, default=300, help="cost limit of each search, sensitivities included"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="seeds of the joint search; single-technique searches use the first",
    )
    parser.add_argument("--budgets", type=int, default=10)
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs; by default they are discarded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.runs or Path(temporary)
        bench = opened(options, folder)
        machine = environment()
        print(
            f"{options.problem.name}, {bench.study_file.model}: {len(bench.space.searched)} sites; "
            f"{machine['cpu']}, torch {machine['torch']}"
        )
        print(
            f"an evaluation: {bench.study_file.tokens.search} tokens forward, 1 thread; "
            f"each search costs {options.evaluations} evaluations"
        )
        alone = {name: over_one(bench, name, folder, options) for name in techniques(bench.study_file)}
        contest = Contest(bench, options.runs)
        runs = [searched(contest, options.evaluations, seed) for seed in options.seeds]
        smallest = min(trial.size_bytes for name, run in alone.items() if name != "drop" for trial in run.trials)
        largest = 2 * bytes_asked(contest)
        show(contest, alone, runs, np.geomspace(smallest, largest, options.budgets).astype(int).tolist())
    return 0


def techniques(study: StudyFile) -> list[str]:
    """Techniques of the linear layers, and ``drop``."""
    found = [parse_choice(text).method for text in study.space.choices["linear"]]
    return [*dict.fromkeys(name for name in found if name != "keep"), "drop"]


def over_one(bench: Workbench, technique: str, folder: Path, options: argparse.Namespace) -> Run:
    """The search over one technique; it reuses the bank's records."""
    study = bench.study_file

    def offered(texts: Sequence[object]) -> list[object]:
        choices: list[Choice] = [parse_choice(text) for text in texts]  # type: ignore[arg-type]
        return [choice.to_mapping() for choice in choices if choice.method == technique or choice == KEEP]

    kinds = {
        kind: list(texts) if kind == "embedding" else offered(texts) for kind, texts in study.space.choices.items()
    }
    space = study.space.model_copy(update={"choices": kinds, "max_drops": None if technique == "drop" else 0})
    restricted = Workbench.open(study.model_copy(update={"space": space}), folder / "bank")
    restricted.fill_bank()
    return searched(Contest(restricted, options.runs), options.evaluations, options.seeds[0])


def searched(contest: Contest, evaluations: int, seed: int) -> Run:
    """The frontier sampler's search for the whole front, at the problem's budget or the smallest plan's size."""
    budget = max(bytes_asked(contest), contest.solver.smallest().size_bytes(contest.bench.space.inventory))
    return contest.run(Task(engine="frontier", evaluations=evaluations, focus="front", budget=f"{budget}B", seed=seed))


def bytes_asked(contest: Contest) -> int:
    return contest.bench.space.inventory.budget_bytes(contest.bench.study_file.budget)


def show(contest: Contest, alone: dict[str, Run], runs: list[Run], budgets: list[int]) -> None:
    """Prints one row per budget."""
    head = ["bytes", "best technique alone, KL", *(f"joint / best technique, seed {run.task.seed}" for run in runs)]
    head += [f"selected / best technique, seed {run.task.seed}" for run in runs]
    head += [f"joint / solver, seed {run.task.seed}" for run in runs] + ["methods of the joint plan"]
    print(f"\n| {' | '.join(head)} |\n|" + " --- |" * len(head))
    for budget in budgets:
        single = {name: trial for name, run in alone.items() if (trial := run.best(run.task.evaluations, budget))}
        name, best = min(single.items(), key=lambda pair: pair[1].loss)
        solved = contest.solved(f"{budget}B")
        joint = [run.best(run.task.evaluations, budget) for run in runs]
        theirs = contest.fresh(best.plan)
        against = [ratio(contest.fresh(trial.plan), theirs) for trial in joint if trial]
        chosen = [ratio(contest.fresh(contest.selected(run, budget).plan), theirs) for run in runs]
        beside = [ratio(contest.fresh(trial.plan), contest.fresh(solved.plan)) for trial in joint if trial]
        taken = (
            [choice.method for _, choice in joint[0].plan.decided(contest.bench.space.inventory)] if joint[0] else []
        )
        words = ", ".join(f"{taken.count(each)} {each}" for each in dict.fromkeys(sorted(taken)))
        cells = [
            f"{budget:,}",
            f"{name}, {theirs.mean:.5f}",
            *map(words_of, against),
            *map(words_of, chosen),
            *map(words_of, beside),
            words,
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def words_of(found: Ratio) -> str:
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
