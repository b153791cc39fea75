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
best front: of every plan (benchmarks/runs/enumerate_plans.py), or the best known, which `--freeze` writes from all runs. With
`--runs` each run is kept in a folder: the same command resumes, and several processes may share it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.contest import Contest, Run, Task
from benchmarks.known_front import Truth, best_points
from benchmarks.problem import budget_of, front_path, opened, problem_parser
from paredown.evaluators.quality import Quality
from paredown.search.workbench.environment import environment
from paredown.space.system.files import write_atomically

NEAR = (1.05, 1.02)
"""Loss ratios to the best known at which the cost is reported."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A sampler with its cost limit.

    Attributes:
        name: The sampler; with ``+uniform`` it starts from the uniform plans.
        evaluations: Cost limit [forward passes over the search set].
    """

    name: str
    evaluations: int

    @classmethod
    def parse(cls, text: str) -> Engine:
        name, _, evaluations = text.partition("=")
        return cls(name, int(evaluations or 128))


@dataclass(frozen=True, slots=True)
class Entry:
    """The runs of an engine, one per seed.

    Attributes:
        engine: The engine.
        focus: ``front`` or ``budget``.
        runs: One run per seed, by budget; the same for all budgets if the whole front was searched.
    """

    engine: Engine
    focus: str
    runs: dict[str, list[Run]]

    @property
    def title(self) -> str:
        return self.engine.name if self.focus == "front" else f"{self.engine.name}, one budget"

    @property
    def all(self) -> list[Run]:
        return [run for runs in self.runs.values() for run in runs]


def main() -> int:
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        bench = opened(options, options.runs or Path(temporary))
        contest, machine = Contest(bench, options.runs), environment()
        budgets = {f"{bits:g} bits": budget_of(bench.space, bits) for bits in options.bits or ()} | {
            b: b for b in options.budgets
        }
        budgets = budgets or {"the budget": bench.question.budget}
        print(
            f"{options.problem.name}, {bench.question.model}: {len(bench.space.searched)} sites; "
            f"{machine['cpu']}, torch {machine['torch']}"
        )
        print(
            f"an evaluation: {bench.question.tokens.search} tokens forward, 1 thread; "
            f"sensitivities cost {contest.sensitivity_cost:.1f} evaluations"
        )
        entries = list(run_all(options, contest, budgets))
        path = front_path(options.problem)
        before = Truth.read(path, bench) if path.is_file() else None
        truth = before or known(entries, None)
        if options.freeze:
            truth = known(entries, before)
            truth.write(path, options.problem.name, bench)
        show_shares(entries, truth, options.evaluations)
        sizes = {name: contest.bench.space.inventory.budget_bytes(budget) for name, budget in budgets.items()}
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
    return 0


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
            own = np.mean([run.seconds / len(run.records) for run in entry.all])
            print(f"  {entry.title}: {own:.3f} s of sampler time per trial", flush=True)
            yield entry


def known(entries: list[Entry], before: Truth | None) -> Truth:
    """The best front of all trials, and of an earlier front."""
    records = [record for entry in entries for run in entry.all for record in run.records if record.whole]
    plans = len({record.plan for record in records}) + (before.plans if before else 0)
    points = [(float(record.size_bytes), record.loss) for record in records]
    return Truth(front=best_points([*points, *(before.front if before else ())]), plans=plans, exhaustive=False)


def table(head: list[str], rows: list[list[str]]) -> None:
    """Prints a Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


def show_shares(entries: list[Entry], truth: Truth, evaluations: list[int]) -> None:
    """Prints hypervolume shares of the engines that search the whole front."""
    fronts = [entry for entry in entries if entry.focus == "front"]
    if not fronts:
        return
    what = "true" if truth.exhaustive else "best known"
    print(f"\nshare of the {what} front's hypervolume, mean over {len(fronts[0].all)} runs (worst)\n")
    rows = []
    for entry in fronts:
        runs = next(iter(entry.runs.values()))
        shares = {
            count: [truth.share(run.points(count)) for run in runs]
            for count in evaluations
            if count <= entry.engine.evaluations
        }
        rows.append(
            [
                entry.title,
                *(f"{np.mean(shares[n]):.4f} ({min(shares[n]):.4f})" if n in shares else "" for n in evaluations),
            ]
        )
    rows.append(["best front with as many plans", *(f"{truth.bound(count):.4f}" for count in evaluations)])
    table(["engine", *map(str, evaluations)], rows)


def show_losses(entries: list[Entry], truth: Truth, sizes: dict[str, int], evaluations: list[int]) -> None:
    """Prints the lowest loss within each budget."""
    best = ", ".join(f"{name}: {truth.at(size):.5g} at {size:,} bytes" for name, size in sizes.items())
    print(f"\nlowest loss within a budget relative to the best known ({best}), mean over seeds (worst)\n")
    rows = []
    for entry in entries:
        for count in (count for count in evaluations if count <= entry.engine.evaluations):
            ratios = {
                name: [run.loss(count, size) / truth.at(size) for run in entry.runs[name]]
                for name, size in sizes.items()
            }
            rows.append(
                [entry.title, str(count), *(f"{np.mean(found):.4f} ({max(found):.4f})" for found in ratios.values())]
            )
    table(["engine", "evaluations", *sizes], rows)


def show_selected(contest: Contest, entries: list[Entry], truth: Truth, sizes: dict[str, int]) -> None:
    """Prints losses of the plans that `select` returns after a search for the whole front."""
    print("\nloss of the plan that `select` returns relative to the best known, mean over seeds (worst)\n")
    rows = []
    for entry in (entry for entry in entries if entry.focus == "front"):
        ratios = [
            [contest.selected(run, size).loss / truth.at(size) for run in entry.runs[name]]
            for name, size in sizes.items()
        ]
        rows.append([entry.title, *(f"{np.mean(found):.4f} ({max(found):.4f})" for found in ratios)])
    table(["engine", *sizes], rows)


def show_costs(entries: list[Entry], truth: Truth, sizes: dict[str, int]) -> None:
    """Prints the cost of coming near the best known loss."""
    print("\nevaluations (and sampler time) until the loss is within 5 % / 2 % of the best known, median over seeds\n")
    rows = []
    for entry in entries:
        cells = []
        for name, size in sizes.items():
            costs = [
                float(np.median([run.cost_of(near * truth.at(size), size) for run in entry.runs[name]]))
                for near in NEAR
            ]
            each = float(np.mean([run.seconds / len(run.records) for run in entry.runs[name]]))
            cells.append(
                " / ".join("never" if np.isinf(cost) else f"{cost:.0f} ({cost * each:.0f} s)" for cost in costs)
            )
        rows.append([entry.title, *cells])
    table(["engine", *sizes], rows)


def show_solver(contest: Contest, truth: Truth, bits: list[float]) -> None:
    """Prints losses of the solver's plans before the first trial."""
    print(f"\nthe solver's plans after {contest.sensitivity_cost:.1f} evaluations: loss relative to the best known\n")
    found = [contest.solved(budget_of(contest.bench.space, each)) for each in bits]
    sizes = [contest.bench.space.inventory.budget_bytes(budget_of(contest.bench.space, each)) for each in bits]
    ratios = [record.loss / truth.at(size) for record, size in zip(found, sizes, strict=True)]
    table([f"{each:g} bits" for each in bits], [[f"{each:.3f}" for each in ratios]])


def show_held_out(contest: Contest, entries: list[Entry], sizes: dict[str, int], selected: bool) -> None:
    """Prints losses of each run's best plan on held-out texts."""
    losses: dict[tuple[str, str], float] = {}
    for entry in entries:
        for name, size in sizes.items():
            best = [run.best(entry.engine.evaluations, size) for run in entry.runs[name]]
            qualities: list[Quality] = [contest.fresh(record.plan) for record in best if record]
            losses[entry.title, name] = (
                float(np.mean([quality.mean for quality in qualities])) if len(qualities) == len(best) else np.inf
            )
            if selected and entry.focus == "front":
                found = [contest.fresh(contest.selected(run, size).plan).mean for run in entry.runs[name]]
                losses[f"{entry.title}, select", name] = float(np.mean(found))
    least = {name: min(loss for (_, at), loss in losses.items() if at == name) for name in sizes}
    tokens = contest.bench.question.tokens.held_out
    print(f"\nloss of the best plan on {tokens} held-out tokens relative to the best engine, mean of seeds\n")
    rows = [
        [title, *(f"{losses[title, name] / least[name]:.4f}" for name in sizes)]
        for title in dict.fromkeys(title for title, _ in losses)
    ]
    table(["engine", *sizes], rows)


def write_csv(entries: list[Entry], path: Path) -> None:
    lines = ["engine,focus,budget,seed,trial,spent,size_bytes,loss,whole"]
    for entry in entries:
        for name, runs in (
            entry.runs.items() if entry.focus == "budget" else [("front", next(iter(entry.runs.values())))]
        ):
            for run in runs:
                for record, spent in zip(run.records, run.spent, strict=True):
                    numbers = f"{record.number},{spent:.4f},{record.size_bytes},{record.loss!r},{int(record.whole)}"
                    lines.append(f"{entry.engine.name},{entry.focus},{name},{run.task.seed},{numbers}")
    write_atomically(path, "\n".join(lines) + "\n")


def draw(entries: list[Entry], truth: Truth, path: Path) -> None:
    """Plots the missing share of the hypervolume against the evaluations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for entry in (entry for entry in entries if entry.focus == "front"):
        counts = np.unique(np.geomspace(4, entry.engine.evaluations, 24).astype(int))
        runs = next(iter(entry.runs.values()))
        missing = [np.mean([1 - truth.share(run.points(count)) for run in runs]) for count in counts]
        axes.plot(counts, np.maximum(missing, 1e-5), marker=".", label=entry.title)
    axes.set(xscale="log", yscale="log", xlabel="evaluations", ylabel="hypervolume missing")
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
