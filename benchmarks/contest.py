"""Benchmark of samplers on one problem at equal cost."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.known_front import best_points
from paredown.evaluators.quality import Quality
from paredown.search.samplers import Problem, Proposal
from paredown.search.sensitivity.measurements import Evidence
from paredown.search.sensitivity.sensitivity import estimated
from paredown.search.solver.solver import Solver
from paredown.search.study.select import learnt
from paredown.search.trial import Trial
from paredown.search.trials.first_plans import seed_plans
from paredown.search.trials.race import Race
from paredown.search.trials.trial_log import TrialLog
from paredown.search.trials.uniform import uniform_plans
from paredown.search.workbench.workbench import Workbench
from paredown.space.budget import Budget
from paredown.space.plan import Plan
from paredown.space.study_file import StudyFile
from paredown.space.system.files import write_atomically

SEEDED = ("frontier", "evopress-solver")
"""Samplers that start from the sensitivities and the solver's plans, and are charged for the sensitivities.

All others start cold.
"""

WARM = "+uniform"
"""Suffix of an engine's name: its sampler starts from the uniform plans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One benchmark task: an engine and its budget.

    Attributes:
        engine: Name of the sampler, followed by `WARM` if it starts from the uniform plans.
        evaluations: Most cost, in forward passes over the whole search set; includes sensitivities if they are used.
        focus: ``budget`` or ``front``.
        budget: Budget, written as in a study file.
        seed: Seed of the sampler.
    """

    engine: str
    evaluations: int
    focus: str
    budget: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The result of an engine on a task.

    Attributes:
        task: The task.
        trials: Trials in their order.
        spent: Cumulative cost after each trial, in forward passes over the whole search set; includes sensitivities.
        seconds: Time of the engine itself, without the forward passes [s].
    """

    task: Task
    trials: tuple[Trial, ...]
    spent: tuple[float, ...]
    seconds: float

    def within(self, evaluations: float) -> list[Trial]:
        """Trials on the whole search set that ended within a cost."""
        return [
            trial
            for trial, spent in zip(self.trials, self.spent, strict=True)
            if spent <= evaluations + 1e-9 and trial.read.whole
        ]

    def best(self, evaluations: float, budget_bytes: int) -> Trial | None:
        """The trial of least loss within a cost and a budget [bytes]; None if no trial fits."""
        fitting = [trial for trial in self.within(evaluations) if trial.size_bytes <= budget_bytes]
        return min(fitting, key=lambda trial: (trial.loss, trial.number), default=None)

    def loss(self, evaluations: float, budget_bytes: int) -> float:
        """Loss of the best trial within a cost and a budget [bytes]; inf if no trial fits."""
        best = self.best(evaluations, budget_bytes)
        return np.inf if best is None else best.loss

    def cost_of(self, loss: float, budget_bytes: int) -> float:
        """Cost of the first trial within the budget whose loss is at most ``loss``; inf if there is none."""
        found = zip(self.trials, self.spent, strict=True)
        return next(
            (spent for r, spent in found if r.read.whole and r.size_bytes <= budget_bytes and r.loss <= loss), np.inf
        )

    def points(self, evaluations: float) -> tuple[tuple[float, float], ...]:
        """Sizes and losses of the Pareto front within a cost."""
        return best_points((float(trial.size_bytes), trial.loss) for trial in self.within(evaluations))

    def write(self, path: Path) -> None:
        """Writes the run as JSON."""
        trials = [trial.to_mapping() for trial in self.trials]
        content = {"task": asdict(self.task), "spent": self.spent, "seconds": self.seconds, "records": trials}
        write_atomically(path, json.dumps(content))

    @classmethod
    def read(cls, path: Path) -> Run:
        """Reads the run of a file."""
        content = json.loads(path.read_text())
        trials = tuple(map(Trial.from_mapping, content["records"]))
        return cls(
            task=Task(**content["task"]), trials=trials, spent=tuple(content["spent"]), seconds=content["seconds"]
        )


class Contest:
    """Runs engines on one problem. Measurements are cached across engines, but each engine is charged in full.

    Args:
        bench: Workbench of the problem; its bank is filled.
        folder: Folder of finished runs, which are read instead of run again; None to keep no runs.
    """

    def __init__(self, bench: Workbench, folder: Path | None = None) -> None:
        self.bench, self.folder = bench, folder
        self.solver = Solver(bench.space)
        search = bench.texts.sequences["search"]
        bench.evaluator.teacher("search")
        evidence = Evidence(bench.space, bench.planned, bench.bank, search)
        self.losses = estimated(bench.study_file.sensitivity, evidence)
        self.sensitivity_cost = (evidence.forward_tokens + 2 * evidence.backward_tokens) / float(search.mask.sum())
        self._measured: dict[tuple[Plan, int | None], Quality] = {}
        self._fresh: dict[tuple[Plan, str], Quality] = {}
        self._seconds = 0.0

    def problem(self, task: Task) -> Problem:
        """The sampler's problem for a task."""
        changes = {"budget": Budget.parse(task.budget), "seed": task.seed, "focus": task.focus}
        study = self.bench.study_file.model_copy(update=changes)
        return Problem.of(study, self.solver, self.losses, len(self.bench.texts.sequences["search"]))

    def run(self, task: Task) -> Run:
        """The run of an engine on a task; read from the folder if it is there."""
        path = self.folder / f"{self._key(task)}.json" if self.folder else None
        if path and path.is_file():
            return Run.read(path)
        run = self._run(task)
        if path:
            run.write(path)
        return run

    def solved(self, budget: str) -> Trial:
        """The solver's plan for a budget under the sensitivities, measured; no engine is charged for it."""
        proposal = seed_plans(
            self.problem(Task(engine="solver", evaluations=0, focus="budget", budget=budget, seed=0))
        )[0]
        quality = self.measure(proposal.plan, None)
        return Trial.of(
            proposal.plan, quality, self.bench.space.inventory, number=0, origin="solver", label=proposal.label
        )

    def selected(self, run: Run, budget_bytes: int) -> Trial:
        """The plan that `select` returns for a budget after a run, measured; no engine is charged for it."""
        plan, _ = learnt(self.solver, self.losses, run.trials, budget_bytes)
        inventory = self.bench.space.inventory
        return Trial.of(
            plan,
            self.measure(plan, None),
            inventory,
            number=len(run.trials),
            origin="select",
            label=f"{budget_bytes}B",
        )

    def fresh(self, plan: Plan, name: str = "held-out") -> Quality:
        """A plan's quality on a set that no engine read."""
        if (plan, name) not in self._fresh:
            self._fresh[plan, name] = self.bench.evaluator.measure(plan, name)
        return self._fresh[plan, name]

    def measure(self, plan: Plan, sequences: int | None) -> Quality:
        """A plan's quality on the first ``sequences`` sequences of the search set; on all of them if None."""
        started = time.perf_counter()
        if (plan, sequences) not in self._measured:
            self._measured[plan, sequences] = self.bench.evaluator.measure_rung(plan, sequences)
        self._seconds += time.perf_counter() - started
        return self._measured[plan, sequences]

    def _run(self, task: Task) -> Run:
        problem = self.problem(task)
        sampler, seeded = task.engine.removesuffix(WARM), task.engine in SEEDED
        seeds: list[tuple[str, Proposal]] = []
        if task.engine.endswith(WARM):
            uniform = uniform_plans(self.bench.space, problem.budget_bytes)
            self.bench.fill_bank([each.plan for each in uniform])
            seeds = [("uniform", Proposal(plan=each.plan, label=each.label)) for each in uniform]
        elif seeded:
            seeds = [("solver", proposal) for proposal in seed_plans(problem)][: None if task.focus == "front" else 1]
        begun = self.sensitivity_cost if seeded else 0.0
        trials: list[Trial] = []
        spent: list[float] = []
        self._seconds = 0.0
        with tempfile.TemporaryDirectory() as folder:
            log = TrialLog(Path(folder) / "study.db", with_latency=False)
            race = Race(log, problem, sampler, seeds, self.measure, lambda plan: None)

            def finished(trial: Trial) -> None:
                trials.append(trial)
                spent.append(begun + race.spent)

            started = time.perf_counter()
            race.run(trials=max(1, int(task.evaluations - begun)), finished=finished)
            seconds = time.perf_counter() - started - self._seconds
        return Run(task=task, trials=tuple(trials), spent=tuple(spent), seconds=seconds)

    def _key(self, task: Task) -> str:
        """File name of a task's run: the task, and a digest of everything that the run depends on."""
        asked = _without_task(self.bench.study_file) | {
            "weights": self.bench.banks.origin.weights,
            "search": self.bench.texts.sha256["search"],
        }
        digest = hashlib.sha256(json.dumps([asked, asdict(task)], sort_keys=True).encode()).hexdigest()
        return f"{task.engine}-{task.focus}-{task.budget}-{task.seed}-{digest[:12]}"


def _without_task(study: StudyFile) -> dict[str, Any]:
    return {
        key: value for key, value in study.fixed_settings().items() if key not in ("budget", "seed", "focus", "sampler")
    }
