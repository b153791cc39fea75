"""Samplers on the same problem at equal cost."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paredown.evaluators.quality import Quality
from paredown.search.evidence import Evidence
from paredown.search.record import Record
from paredown.search.samplers import Proposal, Question
from paredown.search.seeds import seed_plans
from paredown.search.select import learnt
from paredown.search.sensitivity import estimated
from paredown.search.solver import Solver
from paredown.search.study import Race, TrialLog
from paredown.search.truth import best_points
from paredown.search.uniform import uniform_plans
from paredown.search.workbench import Workbench
from paredown.space.files import write_atomically
from paredown.space.plan import Plan
from paredown.space.study_file import StudyFile

SEEDED = ("frontier", "evopress-solver")
"""Samplers that are given what a study knows before its first trial; others start cold."""

WARM = "+uniform"
"""After the name of a sampler: it is given the uniform plans first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What an engine is asked.

    Attributes:
        engine: Name of its sampler, with `WARM` where it starts from the uniform plans.
        evaluations: What it may cost, in forward passes over the whole search set, sensitivities included where it uses them.
        focus: ``budget`` or ``front``.
        budget: As studies say it.
        seed: Of the sampler.
    """

    engine: str
    evaluations: int
    focus: str
    budget: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What an engine did.

    Attributes:
        task: What it was asked.
        records: Trials in their order.
        spent: After each, in forward passes over the whole search set; sensitivities included.
        seconds: Of its own, without the passes.
    """

    task: Task
    records: tuple[Record, ...]
    spent: tuple[float, ...]
    seconds: float

    def within(self, evaluations: float) -> list[Record]:
        """Trials on the whole set that ended at such a cost."""
        return [
            record
            for record, spent in zip(self.records, self.spent, strict=True)
            if spent <= evaluations + 1e-9 and record.whole
        ]

    def best(self, evaluations: float, budget_bytes: int) -> Record | None:
        """Of those that fit a budget of bytes the one of least loss."""
        fitting = [record for record in self.within(evaluations) if record.size_bytes <= budget_bytes]
        return min(fitting, key=lambda record: (record.loss, record.number), default=None)

    def loss(self, evaluations: float, budget_bytes: int) -> float:
        """Its loss; infinite if nothing fits."""
        best = self.best(evaluations, budget_bytes)
        return np.inf if best is None else best.loss

    def cost_of(self, loss: float, budget_bytes: int) -> float:
        """After how many evaluations a plan within the budget lost no more than that; infinite if none did."""
        found = zip(self.records, self.spent, strict=True)
        return next(
            (spent for r, spent in found if r.whole and r.size_bytes <= budget_bytes and r.loss <= loss), np.inf
        )

    def points(self, evaluations: float) -> tuple[tuple[float, float], ...]:
        """Sizes and losses of the plans that no other beats."""
        return best_points((float(record.size_bytes), record.loss) for record in self.within(evaluations))

    def write(self, path: Path) -> None:
        """Writes the run as JSON."""
        records = [record.to_mapping() for record in self.records]
        content = {"task": asdict(self.task), "spent": self.spent, "seconds": self.seconds, "records": records}
        write_atomically(path, json.dumps(content))

    @classmethod
    def read(cls, path: Path) -> Run:
        """The run of a file."""
        content = json.loads(path.read_text())
        records = tuple(map(Record.from_mapping, content["records"]))
        return cls(
            task=Task(**content["task"]), records=records, spent=tuple(content["spent"]), seconds=content["seconds"]
        )


class Contest:
    """A problem on which engines run; what one measured is not measured again for another, but counted.

    Args:
        bench: Of the problem; its bank is filled.
        folder: Where runs are kept, and found again; None to keep none.
    """

    def __init__(self, bench: Workbench, folder: Path | None = None) -> None:
        self.bench, self.folder = bench, folder
        self.solver = Solver(bench.space)
        search = bench.sequences["search"]
        bench.teacher("search")
        evidence = Evidence(bench.space, bench.planned, bench.bank, search)
        self.losses = estimated(bench.question.sensitivity, evidence)
        self.sensitivity_cost = (evidence.forward_tokens + 2 * evidence.backward_tokens) / float(search.mask.sum())
        self._measured: dict[tuple[Plan, int | None], Quality] = {}
        self._fresh: dict[tuple[Plan, str], Quality] = {}
        self._seconds = 0.0

    def question(self, task: Task) -> Question:
        """What the sampler is asked."""
        study = self.bench.question.model_copy(update={"budget": task.budget, "seed": task.seed, "focus": task.focus})
        return Question.of(study, self.solver, self.losses, len(self.bench.sequences["search"]))

    def run(self, task: Task) -> Run:
        """Lets an engine search; a run that is kept is read."""
        path = self.folder / f"{self._key(task)}.json" if self.folder else None
        if path and path.is_file():
            return Run.read(path)
        run = self._run(task)
        if path:
            run.write(path)
        return run

    def solved(self, budget: str) -> Record:
        """The solver's plan for a budget by the sensitivities alone, measured for the benchmark: no engine pays for it."""
        proposal = seed_plans(
            self.question(Task(engine="solver", evaluations=0, focus="budget", budget=budget, seed=0))
        )[0]
        quality = self.measure(proposal.plan, None)
        return Record.of(
            proposal.plan, quality, self.bench.space.inventory, number=0, origin="solver", label=proposal.label
        )

    def selected(self, run: Run, budget_bytes: int) -> Record:
        """What `select` answers for a budget after a run, measured for the benchmark: the solver's plan under what its trials taught."""
        plan, _ = learnt(self.solver, self.losses, run.records, budget_bytes)
        inventory = self.bench.space.inventory
        return Record.of(
            plan,
            self.measure(plan, None),
            inventory,
            number=len(run.records),
            origin="select",
            label=f"{budget_bytes}B",
        )

    def fresh(self, plan: Plan, name: str = "held-out") -> Quality:
        """A plan's quality on texts that no engine saw."""
        if (plan, name) not in self._fresh:
            self._fresh[plan, name] = self.bench.measure(plan, name)
        return self._fresh[plan, name]

    def measure(self, plan: Plan, sequences: int | None) -> Quality:
        """A plan's quality on the first so many sequences of the search set."""
        started = time.perf_counter()
        if (plan, sequences) not in self._measured:
            self._measured[plan, sequences] = self.bench.measure_rung(plan, sequences)
        self._seconds += time.perf_counter() - started
        return self._measured[plan, sequences]

    def _run(self, task: Task) -> Run:
        question = self.question(task)
        sampler, seeded = task.engine.removesuffix(WARM), task.engine in SEEDED
        seeds: list[tuple[str, Proposal]] = []
        if task.engine.endswith(WARM):
            uniform = uniform_plans(self.bench.space, question.budget_bytes)
            self.bench.fill_bank([each.plan for each in uniform])
            seeds = [("uniform", Proposal(plan=each.plan, label=each.label)) for each in uniform]
        elif seeded:
            seeds = [("solver", proposal) for proposal in seed_plans(question)][: None if task.focus == "front" else 1]
        begun = self.sensitivity_cost if seeded else 0.0
        records: list[Record] = []
        spent: list[float] = []
        self._seconds = 0.0
        with tempfile.TemporaryDirectory() as folder:
            log = TrialLog(Path(folder) / "study.db", with_latency=False)
            race = Race(log, question, sampler, seeds, self.measure, lambda plan: None)

            def finished(record: Record) -> None:
                records.append(record)
                spent.append(begun + race.spent)

            started = time.perf_counter()
            race.run(trials=max(1, int(task.evaluations - begun)), finished=finished)
            seconds = time.perf_counter() - started - self._seconds
        return Run(task=task, records=tuple(records), spent=tuple(spent), seconds=seconds)

    def _key(self, task: Task) -> str:
        """Of the task, and of all that its answer depends on."""
        asked = _without_task(self.bench.question) | {
            "weights": self.bench.origin.weights,
            "search": self.bench.texts_sha256["search"],
        }
        digest = hashlib.sha256(json.dumps([asked, asdict(task)], sort_keys=True).encode()).hexdigest()
        return f"{task.engine}-{task.focus}-{task.budget}-{task.seed}-{digest[:12]}"


def _without_task(study: StudyFile) -> dict[str, Any]:
    return {key: value for key, value in study.question().items() if key not in ("budget", "seed", "focus", "sampler")}
