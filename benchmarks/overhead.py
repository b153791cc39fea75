"""Overhead of a trial: its time outside the forward passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from paredown.deploy.engines.transformers import TorchModel
from paredown.evaluators.quality import Quality
from paredown.search.samplers import Problem, Proposal
from paredown.search.sensitivity.measurements import Evidence
from paredown.search.sensitivity.sensitivity import estimated
from paredown.search.solver.solver import Solver
from paredown.search.trial import Trial
from paredown.search.trials.race import Race
from paredown.search.trials.trial_log import TrialLog
from paredown.search.workbench.workbench import Workbench
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import StudyFile

FEW = 10
"""Most sites that one benchmark trial changes relative to the one before."""

PARTS = ("forward passes", "ask", "swap", "latency", "tell")
PROPOSALS = 10
"""Sampler proposals that are timed."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """Seconds that trials took; the last trial changed every site.

    Attributes:
        seconds: Times by part, one entry per trial [s]; ``trial`` is the whole trial.
        proposals: Times of the sampler's own proposals [s]; not part of these trials.
    """

    seconds: Mapping[str, Sequence[float]]
    proposals: Sequence[float]

    @property
    def shares(self) -> list[float]:
        """Overhead of each trial as a share of its forward passes."""
        return [
            (whole - forward) / forward
            for whole, forward in zip(self.seconds["trial"], self.seconds["forward passes"], strict=True)
        ]


class Clock:
    """Seconds spent under each name, one entry per call."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def timed(self, name: str, call: Callable[..., T]) -> Callable[..., T]:
        """The same function; each call adds its time under ``name``."""

        def wrapped(*arguments: object, **options: object) -> T:
            started = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.spent.setdefault(name, []).append(time.perf_counter() - started)

        return wrapped


def prepared(study: StudyFile, folder: Path) -> tuple[Workbench, Problem]:
    """Workbench and problem of a study at process start: bank and sensitivities exist, nothing is decoded yet."""
    first = Workbench.open(study, folder / "bank")
    first.fill_bank()
    losses = estimated(
        study.sensitivity, Evidence(first.space, first.planned, first.bank, first.texts.sequences["search"])
    )
    problem = Problem.of(study, Solver(first.space), losses, len(first.texts.sequences["search"]))
    return Workbench.open(study, folder / "bank"), problem


def measure_overhead(bench: Workbench, problem: Problem, folder: Path, trials: int) -> Overhead:
    """Runs real trials on a real database.

    The first trial is the solver's plan and is not counted. Trials that change few sites follow, then one that changes
    every site.

    Args:
        bench: Workbench of a prepared study; its latency is timed too unless that is off.
        problem: The problem that the sampler works on.
        folder: Folder for the database.
        trials: Number of trials that change few sites.
    """
    generator = np.random.default_rng(0)
    plans = [problem.solver.solve(problem.losses, problem.budget_bytes)]
    for _ in range(trials):
        plans.append(moved(bench.space, plans[-1], int(generator.integers(1, FEW + 1)), generator))
    plans.append(moved(bench.space, plans[-1], len(bench.space.inventory.sites), generator))
    clock = Clock()
    race = _run(bench, problem, folder, plans, clock)
    seconds = {name: values[1:] for name, values in clock.spent.items()}  # the first trial warms all caches
    return Overhead(seconds=seconds, proposals=_proposal_seconds(race))


def moved(space: Space, plan: Plan, sites: int, generator: np.random.Generator) -> Plan:
    """The plan with a different choice at ``sites`` random leaves that can differ."""
    decided = {
        site.name: choice for site, choice in plan.decided(space.inventory) if site.kind in ("linear", "embedding")
    }
    choices: dict[str, Choice] = {
        name: plan[name] for name in (site.name for site in space.inventory.sites) if plan[name] != KEEP
    }
    free = [name for name in decided if len(space.options[name]) > 1]
    for index in generator.choice(len(free), min(sites, len(free)), replace=False):
        options = [choice for choice in space.options[free[index]] if choice != decided[free[index]]]
        choices[free[index]] = options[int(generator.integers(len(options)))]
    return Plan.of(space.inventory, choices)


def _run(bench: Workbench, problem: Problem, folder: Path, plans: Sequence[Plan], clock: Clock) -> Race:
    """Measures the plans as a search does; the clock gets one entry per trial for each part and for the whole trial."""
    table = (
        bench.latency_table(folder / "latency.json", TorchModel, plans)
        if bench.study_file.latency == "measure"
        else None
    )
    log = TrialLog(folder / "study.db", with_latency=table is not None)
    log.ask = clock.timed("ask", log.ask)  # type: ignore[method-assign]
    log.tell = clock.timed("tell", log.tell)  # type: ignore[method-assign]
    swap = clock.timed("swap", bench.planned.swap)
    forward = clock.timed("forward passes", bench.evaluator.teacher("search").measure)

    def measure(plan: Plan, sequences: int | None) -> Quality:
        swap(plan)
        return forward(bench.planned.model, sequences)

    def latency(plan: Plan) -> tuple[float | None, float] | None:
        return table.predict(bench.space.inventory, plan) if table else None

    seeds = [("benchmark", Proposal(plan=plan, label="benchmark")) for plan in plans]
    race = Race(log, problem, "frontier", seeds, measure, clock.timed("latency", latency))
    ends = [time.perf_counter()]

    def finished(trial: Trial) -> None:
        ends.append(time.perf_counter())

    race.run(trials=len(plans), finished=finished)
    clock.spent["trial"] = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    return race


def _proposal_seconds(race: Race) -> list[float]:
    """Time of each of several proposals of the sampler with this history [s]."""
    clock = Clock()
    propose = clock.timed("propose", race.sampler.propose)
    for _ in range(PROPOSALS):
        trial = race.log.ask()
        propose(trial, list(race.history.values()))
        race.log.fail(trial, "benchmark")
    return clock.spent["propose"]
