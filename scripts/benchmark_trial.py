"""What a trial costs beside its forward passes: swap, bookkeeping and storage as a share of them.

    python scripts/benchmark_trial.py --model studies/models/demo

Runs real trials (`Race`, `TrialLog`, `PlannedModel.swap`, `Teacher.measure`) on a real database in a folder that is removed
afterwards; the share is no time of its own, so a busy machine moves it little. Exits 1 where a share is above the limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

import paredown  # noqa: F401 - registers the methods
from paredown.evaluators.quality import Quality
from paredown.search.record import Record
from paredown.search.samplers import Proposal, Question
from paredown.search.sensitivity import single_site
from paredown.search.solver import Solver
from paredown.search.study import Race, TrialLog
from paredown.search.workbench import Workbench, environment
from paredown.space.budget import Budget
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import StudyFile, Tokens

T = TypeVar("T")


class Clock:
    """Seconds spent under each name, one entry a trial."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def timed(self, name: str, call: Callable[..., T]) -> Callable[..., T]:
        """The same function, its time kept."""

        def wrapped(*arguments: object, **options: object) -> T:
            started = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.spent.setdefault(name, []).append(time.perf_counter() - started)

        return wrapped


def moved(space: Space, plan: Plan, sites: int, generator: np.random.Generator) -> Plan:
    """The plan with another choice, which nothing overrules, at this many sites."""
    decided = {site.name: choice for site, choice in plan.decided(space.inventory) if site.kind in ("linear", "embedding")}
    choices: dict[str, Choice] = {name: plan[name] for name in (site.name for site in space.inventory.sites) if plan[name] != KEEP}
    free = [name for name in decided if len(space.options[name]) > 1]
    for index in generator.choice(len(free), min(sites, len(free)), replace=False):
        options = [choice for choice in space.options[free[index]] if choice != decided[free[index]]]
        choices[free[index]] = options[int(generator.integers(len(options)))]
    return Plan.of(space.inventory, choices)


def run_trials(bench: Workbench, question: Question, folder: Path, plans: list[Plan], clock: Clock) -> Race:
    """Measures the plans as a search does; the clock has an entry a trial for every part, and for the whole."""
    table = bench.latency_table(folder / "latency.json") if bench.question.latency == "measure" else None
    log = TrialLog(folder / "study.db", with_latency=table is not None)
    log.ask = clock.timed("ask", log.ask)  # type: ignore[method-assign]
    log.tell = clock.timed("tell", log.tell)  # type: ignore[method-assign]
    swap = clock.timed("swap", bench.planned.swap)
    forward = clock.timed("forward passes", bench.teacher("search").measure)

    def measure(plan: Plan) -> Quality:
        swap(plan)
        return forward(bench.model)

    def latency(plan: Plan) -> tuple[float, float] | None:
        return table.predict(bench.space.inventory, plan) if table else None

    seeds = [("benchmark", Proposal(plan=plan, label="benchmark")) for plan in plans]
    race = Race(log, question, "frontier", seeds, measure, clock.timed("latency", latency))
    ends = [time.perf_counter()]

    def finished(record: Record) -> None:
        ends.append(time.perf_counter())

    race.run(trials=len(plans), deadline=None, finished=finished)
    clock.spent["trial"] = list(np.diff(ends))
    return race


def proposal_seconds(race: Race, times: int) -> list[float]:
    """What the sampler itself takes with this history."""
    clock = Clock()
    propose = clock.timed("propose", race.sampler.propose)
    for _ in range(times):
        trial = race.log.ask(race.sampler.optuna_sampler(len(race.history)))
        propose(trial, list(race.history.values()))
        race.log.fail(trial, "benchmark")
    return clock.spent["propose"]


def quartiles(values: list[float] | np.ndarray, unit: str, factor: float) -> str:
    """Median and quartiles."""
    low, middle, high = np.quantile(np.asarray(values) * factor, [0.25, 0.5, 0.75])
    return f"{middle:.2f} {unit} (quartiles {low:.2f} to {high:.2f})"


def prepare(study: StudyFile, folder: Path) -> tuple[Workbench, Question]:
    """A study as it stands when its process was started anew: bank and sensitivities are there, nothing is decoded yet."""
    first = Workbench(study, folder / "bank")
    first.fill_bank()
    losses = single_site(first.space, first.planned, first.bank, first.sequences["calibration"])
    inventory = first.space.inventory
    budget = Budget.parse(study.budget).bytes_of(inventory.original_bytes, inventory.parameters)
    question = Question(space=first.space, solver=Solver(first.space), losses=losses, budget_bytes=budget, seed=0)
    return Workbench(study, folder / "bank"), question


def show(clock: Clock, proposals: list[float]) -> tuple[float, float]:
    """Prints every part; the median share of the trials that change few sites, and the share of the full swap."""
    spent = {part: np.array(values) for part, values in clock.spent.items()}
    share = (spent["trial"] - spent["forward passes"]) / spent["forward passes"]
    for part in ("forward passes", "ask", "swap", "latency", "tell"):
        print(f"  {part:<16} {quartiles(spent[part][1:-1], 'ms', 1e3)}; full swap {1e3 * spent[part][-1]:.2f} ms")
    few, full = share[1:-1], float(share[-1])
    print(f"share, ten sites or fewer: {quartiles(few, '%', 100)}")
    print(f"share, full swap: {100 * full:.2f} %")
    print(f"the sampler's own proposal, not in the share: {quartiles(proposals, 'ms', 1e3)}")
    return float(np.median(few)), full


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="studies/models/demo")
    parser.add_argument("--trials", type=int, default=50, help="trials that change ten sites or fewer")
    parser.add_argument("--tokens", type=int, default=Tokens().search, help="of the search set, for every trial")
    parser.add_argument("--budget", default="45%", help="of the plan that the trials start from")
    parser.add_argument("--no-latency", action="store_true", help="leave latency out of the objectives, and measure no table")
    parser.add_argument("--limit", type=float, default=0.15, help="largest share that passes")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the temporary folder is made; it must be on a disk")
    options = parser.parse_args()
    torch.set_num_threads(1)
    latency = "off" if options.no_latency else "measure"
    tokens = Tokens(search=options.tokens, calibration=1024, selection=512, held_out=512)
    study = StudyFile(model=options.model, budget=options.budget, latency=latency, tokens=tokens)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix=".benchmark-") as name:
        bench, question = prepare(study, Path(name))
        space, inventory = bench.space, bench.space.inventory
        generator = np.random.default_rng(0)
        plans = [question.solver.solve(question.losses, question.budget_bytes)]
        for _ in range(options.trials):
            plans.append(moved(space, plans[-1], int(generator.integers(1, 11)), generator))
        plans.append(moved(space, plans[-1], len(inventory.sites), generator))
        clock = Clock()
        race = run_trials(bench, question, Path(name), plans, clock)
        proposals = proposal_seconds(race, 10)
    machine, read = environment(), int(bench.sequences["search"].mask.sum())
    print(f"{options.model}: {inventory.parameters:,} parameters, {len(inventory.leaves)} matrices; {read:,} tokens, float32, 1 thread")
    print(f"{machine['cpu']}, {machine['cores']} cores; torch {machine['torch']}; optuna {machine['optuna']}, SQLite, synchronous=FULL")
    print(f"timed: {options.trials} trials that change 1 to 10 sites of the one before, after one that is not counted; then one full swap")
    print("overhead: the whole trial less its forward passes: ask, swap, decoding from the bank, record, latency prediction, tell")
    print("at the start nothing is decoded, as when a study goes on in a new process")
    return int(max(show(clock, proposals)) > options.limit)


if __name__ == "__main__":
    sys.exit(main())
