"""Samplers on the same problem at equal cost, against the truth where that is known."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paredown.evaluators.quality import Quality
from paredown.search.enumeration import Enumeration
from paredown.search.evidence import Evidence
from paredown.search.pareto import hypervolume, lower_left
from paredown.search.record import Record
from paredown.search.samplers import Proposal, Question
from paredown.search.seeds import seed_plans
from paredown.search.sensitivity import estimated
from paredown.search.solver import Solver
from paredown.search.study import Race, TrialLog
from paredown.search.workbench import Workbench
from paredown.space.plan import Plan

Points = Sequence[tuple[float, float]]
"""Sizes and losses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What an engine did.

    Attributes:
        sampler: Its name.
        records: Trials in their order.
        spent: After each, in forward passes over the whole search set; sensitivities included.
        seconds: Of its own, without the passes.
    """

    sampler: str
    records: tuple[Record, ...]
    spent: tuple[float, ...]
    seconds: float

    def within(self, evaluations: float) -> list[Record]:
        """Trials on the whole set that ended at such a cost."""
        return [record for record, spent in zip(self.records, self.spent, strict=True) if spent <= evaluations + 1e-9 and record.whole]

    def best(self, evaluations: float, budget_bytes: int) -> float:
        """Least loss within a budget of bytes at such a cost; infinite if nothing fits."""
        return min([record.loss for record in self.within(evaluations) if record.size_bytes <= budget_bytes], default=np.inf)


class Contest:
    """A problem on which samplers run; what one measured is not measured again for another, but counted.

    Args:
        bench: Of the problem; its bank is filled.
        estimator: Of the sensitivities.
    """

    def __init__(self, bench: Workbench, estimator: str = "single-site") -> None:
        self.bench = bench
        self.solver = Solver(bench.space)
        bench.teacher("search")
        evidence = Evidence(bench.space, bench.planned, bench.bank, bench.sequences["calibration"], None)
        self.losses = estimated(estimator, evidence)
        search = bench.sequences["search"]
        self.sensitivity_cost = (evidence.forward_tokens + 2 * evidence.backward_tokens) / float(search.mask.sum())
        self._measured: dict[tuple[Plan, int | None], Quality] = {}
        self._seconds = 0.0

    def run(self, sampler: str, *, evaluations: int, budget_bytes: int, seed: int, focus: str = "budget", seeded: bool = True) -> Run:
        """Lets a sampler search.

        Args:
            sampler: Its name.
            evaluations: What it may cost, in forward passes over the whole search set; sensitivities count where it is seeded.
            budget_bytes: Of the plans.
            seed: Of the sampler.
            focus: ``budget`` or ``front``.
            seeded: Whether it is given the sensitivities and starts from the solver's plans.
        """
        question = Question(
            space=self.bench.space, solver=self.solver, losses=self.losses, budget_bytes=budget_bytes, seed=seed,
            sequences=len(self.bench.sequences["search"]), focus=focus,
        )  # fmt: skip
        seeds: list[tuple[str, Proposal]] = [("solver", proposal) for proposal in seed_plans(question)] if seeded else []
        if focus == "budget":
            seeds = seeds[:1]
        begun = self.sensitivity_cost if seeded else 0.0
        records: list[Record] = []
        spent: list[float] = []
        self._seconds = 0.0
        with tempfile.TemporaryDirectory() as folder:
            race = Race(TrialLog(Path(folder) / "study.db", with_latency=False), question, sampler, seeds, self._measure, lambda plan: None)

            def finished(record: Record) -> None:
                records.append(record)
                spent.append(begun + race.spent)

            started = time.perf_counter()
            race.run(trials=max(1, int(evaluations - begun)), deadline=None, finished=finished)
            seconds = time.perf_counter() - started - self._seconds
        return Run(sampler=sampler, records=tuple(records), spent=tuple(spent), seconds=seconds)

    def _measure(self, plan: Plan, sequences: int | None) -> Quality:
        started = time.perf_counter()
        if (plan, sequences) not in self._measured:
            self._measured[plan, sequences] = self.bench.measure_rung(plan, sequences)
        self._seconds += time.perf_counter() - started
        return self._measured[plan, sequences]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The front of all plans.

    Attributes:
        front: Sizes and losses, smallest first.
    """

    front: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, enumeration: Enumeration) -> Truth:
        """Of every plan."""
        points = list(zip(enumeration.sizes.tolist(), enumeration.losses.tolist(), strict=True))
        return cls(front=tuple(points[i] for i in lower_left(points)))

    def share(self, points: Points) -> float:
        """Hypervolume of the points as a share of the true front's: of size, and of the logarithm of the loss, each scaled to one
        over the true front, measured from its far corner, a hundredth beyond."""
        return self._volume(points) / self._volume(self.front)

    def bound(self, count: int) -> float:
        """The greatest share that so many plans of the front reach, chosen one after the other."""
        chosen: list[tuple[float, float]] = []
        left = list(self.front)
        for _ in range(min(count, len(left))):
            best = max(left, key=lambda point: self._volume([*chosen, point]))
            chosen.append(best)
            left.remove(best)
        return self.share(chosen)

    def _volume(self, points: Points) -> float:
        (low, worst), (high, best) = self.front[0], self.front[-1]
        scaled = [((size - low) / (high - low), np.log(max(loss, 1e-12) / best) / np.log(worst / best)) for size, loss in points]
        return hypervolume(scaled, (1.01, 1.01))


def points_of(records: Sequence[Record]) -> list[tuple[float, float]]:
    """Sizes and losses of those that no other beats."""
    points = [(float(record.size_bytes), record.loss) for record in records]
    return [points[i] for i in lower_left(points)]
