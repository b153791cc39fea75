"""Samplers on one problem at equal cost, in forward passes over its search set.

    OMP_NUM_THREADS=1 python -m benchmarks.runs.search studies/problems/quantization.yaml \\
        --front frontier=128 amq=128 nsga2=128
    OMP_NUM_THREADS=1 python -m benchmarks.runs.search studies/problems/linear.yaml --bits 2.5 3 3.5 4.25 \\
        --runs runs/linear --at-budgets frontier=100 evopress=400 --front frontier=100 amq=800 \\
        --evaluations 100 400 800 --held-out

An engine is a sampler with its cost limit, and optionally a start from the uniform plans (`nsga2+uniform=800`).
`--front` engines search the whole front once per seed; `--at-budgets` engines search once per seed and budget. The
cost is counted in forward passes; sensitivities count, and a backward pass counts as two. `frontier` and
`evopress-solver` start from the sensitivities; the others start cold. NAME.front.json beside the problem holds its
best front: of every plan (benchmarks/runs/enumerate_plans.py), or the best known, which `--freeze` writes from all
runs. With `--runs` each run is kept in a folder: the same command resumes, and several processes may share it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.contest import Contest, Run, Task
from benchmarks.contest_tables import (
    Engine,
    Entry,
    draw,
    show_costs,
    show_held_out,
    show_losses,
    show_selected,
    show_shares,
    show_solver,
    write_csv,
)
from benchmarks.known_front import Truth, best_points
from benchmarks.problem import budget_of, front_path, opened, problem_parser
from paredown.search.workbench.environment import environment
from paredown.space.budget import Budget


def main() -> int:
    options = parse_options()
    with tempfile.TemporaryDirectory() as temporary:
        bench = opened(options, options.runs or Path(temporary))
        contest = Contest(bench, options.runs)
        budgets = {f"{bits:g} bits": budget_of(bench.space, bits) for bits in options.bits or ()}
        budgets |= {budget: budget for budget in options.budgets}
        budgets = budgets or {"the budget": str(bench.study_file.budget)}
        show_problem(options.problem.name, contest)
        entries = list(run_all(options, contest, budgets))
        path = front_path(options.problem)
        before = Truth.read(path, bench) if path.is_file() else None
        truth = before or known(entries, None)
        if options.freeze:
            truth = known(entries, before)
            truth.write(path, options.problem.name, bench)
        sizes = {name: bench.space.inventory.budget_bytes(Budget.parse(budget)) for name, budget in budgets.items()}
        show_results(options, contest, entries, truth, sizes)
    return 0


def parse_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = problem_parser(__doc__)
    parser.add_argument("--front", nargs="*", default=[], type=Engine.parse, metavar="ENGINE=N")
    parser.add_argument("--at-budgets", nargs="*", default=[], type=Engine.parse, metavar="ENGINE=N")
    parser.add_argument(
        "--bits",
        nargs="+",
        type=float,
        help="budgets in stored bits per weight of the linear layers; the problem's own by default",
    )
    parser.add_argument("--budgets", nargs="+", default=[], help="budgets as in study files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--evaluations", type=int, nargs="+", default=[32, 64, 128], help="costs at which the engines are compared"
    )
    parser.add_argument(
        "--solver-front",
        type=float,
        nargs="+",
        help="budgets in bits per weight at which the solver's initial plans are measured",
    )
    parser.add_argument(
        "--selected",
        action="store_true",
        help="measure the plan that `select` returns at each budget after a search for the whole front",
    )
    parser.add_argument("--held-out", action="store_true", help="compare each engine's best plans on held-out texts")
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs; by default they are discarded")
    parser.add_argument(
        "--freeze", action="store_true", help="write the best known front, from all runs and the existing front"
    )
    parser.add_argument("--csv", type=Path, help="write every trial to this CSV file")
    parser.add_argument("--picture", type=Path, help="write the missing hypervolume as a PNG plot")
    return parser.parse_args()


def show_problem(name: str, contest: Contest) -> None:
    """Prints the problem, the machine and the cost of an evaluation."""
    bench, machine = contest.bench, environment()
    print(
        f"{name}, {bench.study_file.model}: {len(bench.space.searched)} sites; "
        f"{machine['cpu']}, torch {machine['torch']}"
    )
    print(
        f"an evaluation: {bench.study_file.tokens.search} tokens forward, 1 thread; "
        f"sensitivities cost {contest.sensitivity_cost:.1f} evaluations"
    )


def show_results(
    options: argparse.Namespace, contest: Contest, entries: list[Entry], truth: Truth, sizes: dict[str, int]
) -> None:
    """Prints the tables that were asked for, and writes the files."""
    show_shares(entries, truth, options.evaluations)
    show_losses(entries, truth, sizes, options.evaluations)
    if options.selected:
        show_selected(contest, entries, truth, sizes)
    show_costs(entries, truth, sizes)
    if options.solver_front:
        show_solver(contest, truth, options.solver_front)
    if options.held_out:
        show_held_out(contest, entries, sizes, options.selected)
    if options.csv:
        write_csv(entries, options.csv)
    if options.picture:
        draw(entries, truth, options.picture)


def run_all(options: argparse.Namespace, contest: Contest, budgets: dict[str, str]) -> Iterable[Entry]:
    """Runs every engine."""
    middle = list(budgets.values())[len(budgets) // 2]
    for focus, engines in (("front", options.front), ("budget", options.at_budgets)):
        for engine in engines:
            runs: dict[str, list[Run]] = {}
            for name, budget in budgets.items():
                asked = middle if focus == "front" else budget
                tasks = [
                    Task(engine=engine.name, evaluations=engine.evaluations, focus=focus, budget=asked, seed=s)
                    for s in options.seeds
                ]
                again = focus == "front" and runs
                runs[name] = next(iter(runs.values())) if again else [contest.run(task) for task in tasks]
            entry = Entry(engine, focus, runs)
            own = np.mean([run.seconds / len(run.trials) for run in entry.all])
            print(f"  {entry.title}: {own:.3f} s of sampler time per trial", flush=True)
            yield entry


def known(entries: list[Entry], before: Truth | None) -> Truth:
    """The best front of all trials, and of an earlier front."""
    trials = [trial for entry in entries for run in entry.all for trial in run.trials if trial.read.whole]
    plans = len({trial.plan for trial in trials}) + (before.plans if before else 0)
    points = [(float(trial.size_bytes), trial.loss) for trial in trials]
    return Truth(front=best_points([*points, *(before.front if before else ())]), plans=plans, exhaustive=False)


if __name__ == "__main__":
    sys.exit(main())
