"""What a trial costs beside its forward passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from paredown.evaluators.quality import Quality
from paredown.search.evidence import Evidence
from paredown.search.record import Record
from paredown.search.samplers import Proposal, Question
from paredown.search.sensitivity import estimated
from paredown.search.solver import Solver
from paredown.search.study import Race, TrialLog
from paredown.search.workbench import Workbench
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import StudyFile

FEW = 10
"""A trial of a search changes no more sites than so of the one before."""

PARTS = ("forward passes", "ask", "swap", "latency", "tell")
PROPOSALS = 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """Seconds that trials took; the last one changed every site.

    Attributes:
        seconds: By name of the part, an entry a trial; ``trial`` is the whole.
        proposals: What the sampler's own proposals took, which are no part of these trials.
    """

    seconds: Mapping[str, Sequence[float]]
    proposals: Sequence[float]

    @property
    def shares(self) -> list[float]:
        """Of each trial: the whole less its forward passes, as a share of these."""
        return [
            (whole - forward) / forward
            for whole, forward in zip(self.seconds["trial"], self.seconds["forward passes"], strict=True)
        ]


class Clock:
    """Seconds spent under each name, one entry a call."""

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


def prepared(study: StudyFile, folder: Path) -> tuple[Workbench, Question]:
    """A study as it stands when its process was started anew: bank and sensitivities are there, nothing is decoded yet."""
    first = Workbench(study, folder / "bank")
    first.fill_bank()
    losses = estimated(study.sensitivity, Evidence(first.space, first.planned, first.bank, first.sequences["search"]))
    question = Question.of(study, Solver(first.space), losses, len(first.sequences["search"]))
    return Workbench(study, folder / "bank"), question


def measure_overhead(bench: Workbench, question: Question, folder: Path, trials: int) -> Overhead:
    """Runs real trials on a real database: the solver's plan, not counted; so many that change few sites; one that changes all.

    Args:
        bench: Of a study that was prepared; its latency is timed too unless that is off.
        question: What samplers are asked.
        folder: Where the database is made.
        trials: How many that change few sites.
    """
    generator = np.random.default_rng(0)
    plans = [question.solver.solve(question.losses, question.budget_bytes)]
    for _ in range(trials):
        plans.append(moved(bench.space, plans[-1], int(generator.integers(1, FEW + 1)), generator))
    plans.append(moved(bench.space, plans[-1], len(bench.space.inventory.sites), generator))
    clock = Clock()
    race = _run(bench, question, folder, plans, clock)
    seconds = {name: values[1:] for name, values in clock.spent.items()}  # the first trial makes what all others find
    return Overhead(seconds=seconds, proposals=_proposal_seconds(race))


def moved(space: Space, plan: Plan, sites: int, generator: np.random.Generator) -> Plan:
    """The plan with another choice, which nothing overrules, at this many sites."""
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


def _run(bench: Workbench, question: Question, folder: Path, plans: Sequence[Plan], clock: Clock) -> Race:
    """Measures the plans as a search does; the clock has an entry a trial for every part, and for the whole."""
    table = bench.latency_table(folder / "latency.json", plans) if bench.question.latency == "measure" else None
    log = TrialLog(folder / "study.db", with_latency=table is not None)
    log.ask = clock.timed("ask", log.ask)  # type: ignore[method-assign]
    log.tell = clock.timed("tell", log.tell)  # type: ignore[method-assign]
    swap = clock.timed("swap", bench.planned.swap)
    forward = clock.timed("forward passes", bench.teacher("search").measure)

    def measure(plan: Plan, sequences: int | None) -> Quality:
        swap(plan)
        return forward(bench.model, sequences)

    def latency(plan: Plan) -> tuple[float | None, float] | None:
        return table.predict(bench.space.inventory, plan) if table else None

    seeds = [("benchmark", Proposal(plan=plan, label="benchmark")) for plan in plans]
    race = Race(log, question, "frontier", seeds, measure, clock.timed("latency", latency))
    ends = [time.perf_counter()]

    def finished(record: Record) -> None:
        ends.append(time.perf_counter())

    race.run(trials=len(plans), finished=finished)
    clock.spent["trial"] = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    return race


def _proposal_seconds(race: Race) -> list[float]:
    """What the sampler itself takes with this history."""
    clock = Clock()
    propose = clock.timed("propose", race.sampler.propose)
    for _ in range(PROPOSALS):
        trial = race.log.ask()
        propose(trial, list(race.history.values()))
        race.log.fail(trial, "benchmark")
    return clock.spent["propose"]
