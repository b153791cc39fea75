"""Runs of several engines on one problem, as tables, a CSV file and a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.contest import Contest, Run
from benchmarks.known_front import Truth
from benchmarks.problem import budget_of
from paredown.evaluators.quality import Quality
from paredown.space.budget import Budget
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
            each = float(np.mean([run.seconds / len(run.trials) for run in entry.runs[name]]))
            cells.append(
                " / ".join("never" if np.isinf(cost) else f"{cost:.0f} ({cost * each:.0f} s)" for cost in costs)
            )
        rows.append([entry.title, *cells])
    table(["engine", *sizes], rows)


def show_solver(contest: Contest, truth: Truth, bits: list[float]) -> None:
    """Prints losses of the solver's plans before the first trial."""
    print(f"\nthe solver's plans after {contest.sensitivity_cost:.1f} evaluations: loss relative to the best known\n")
    found = [contest.solved(budget_of(contest.bench.space, each)) for each in bits]
    sizes = [
        contest.bench.space.inventory.budget_bytes(Budget.parse(budget_of(contest.bench.space, each))) for each in bits
    ]
    ratios = [trial.loss / truth.at(size) for trial, size in zip(found, sizes, strict=True)]
    table([f"{each:g} bits" for each in bits], [[f"{each:.3f}" for each in ratios]])


def show_held_out(contest: Contest, entries: list[Entry], sizes: dict[str, int], selected: bool) -> None:
    """Prints losses of each run's best plan on held-out texts."""
    losses: dict[tuple[str, str], float] = {}
    for entry in entries:
        for name, size in sizes.items():
            best = [run.best(entry.engine.evaluations, size) for run in entry.runs[name]]
            qualities: list[Quality] = [contest.fresh(trial.plan) for trial in best if trial]
            losses[entry.title, name] = (
                float(np.mean([quality.mean for quality in qualities])) if len(qualities) == len(best) else np.inf
            )
            if selected and entry.focus == "front":
                found = [contest.fresh(contest.selected(run, size).plan).mean for run in entry.runs[name]]
                losses[f"{entry.title}, select", name] = float(np.mean(found))
    least = {name: min(loss for (_, at), loss in losses.items() if at == name) for name in sizes}
    tokens = contest.bench.study_file.tokens.held_out
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
                for trial, spent in zip(run.trials, run.spent, strict=True):
                    numbers = f"{trial.number},{spent:.4f},{trial.size_bytes},{trial.loss!r},{int(trial.read.whole)}"
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
