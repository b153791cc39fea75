"""Time budget of a run: forecast from the measured pace, and the reserve for the steps after the trials."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from paredown.evaluators.door import memory_faults
from paredown.evaluators.quality import Quality
from paredown.search.finalists.checks import DRAWS
from paredown.search.finalists.decide import decide
from paredown.search.finalists.finalists import measurements
from paredown.search.finalists.measurements import Measurements
from paredown.search.finalists.pace import Measurement, Pace
from paredown.search.finalists.rebuild import Version, rebuilder
from paredown.search.outcome.outcome import Outcome
from paredown.search.outcome.progress import Progress
from paredown.search.trials.clock import Clock
from paredown.search.trials.race import Race
from paredown.search.workbench.workbench import Workbench
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan

BUSY = 1.25
"""Safety factor on the expected time of the steps after the trials, for the reserve under a limit."""


class Schedule:
    """Measures a workbench's plans and forecasts the time of the rest of the run.

    Args:
        clock: Time limit of the run.
        bench: The workbench.
        progress: Receives the progress.
        stored: The finalists' measurements that are on disk.

    Attributes:
        timing: Expected time to time the deployed models [s].
        closing: Expected time to write reports and plans [s].
    """

    def __init__(self, clock: Clock, bench: Workbench, progress: Progress, stored: Measurements) -> None:
        self.clock, self.bench, self.progress = clock, bench, progress
        self.stored = stored
        self.pace = Pace({name: int(part.mask.sum()) for name, part in bench.texts.sequences.items()})
        self.timing = self.closing = 0.0

    def measure_original(self) -> Quality:
        """Quality of the original on the search set."""
        started = time.monotonic()
        quality = self.bench.evaluator.teacher("search").measure(self.bench.planned.model)
        self.pace.read(2 * self.pace.tokens["search"], time.monotonic() - started)  # the teacher's pass counts too
        return quality

    def measure_rung(self, plan: Plan, sequences: int | None) -> Quality:
        """Quality of a plan on the first sequences of the search set; None for all of them."""
        started = time.monotonic()
        quality = self.bench.evaluator.measure_rung(plan, sequences)
        share = 1.0 if sequences is None else sequences / len(self.bench.texts.sequences["search"])
        self.pace.read(share * self.pace.tokens["search"], time.monotonic() - started)
        return quality

    def rehearse(self, plan: Plan) -> None:
        """Compresses the solver's plan in order, as finalists are, so that its time is known before the trials."""
        versions = [Version(in_order=True, draw=draw) for draw in range(DRAWS)]
        if not self.bench.is_calibrated(plan) or not self.clock.has(
            2 * self.pace.seconds([(plan, "selection", versions[0])])
        ):
            return
        self.progress.step("the solver's plan in order", 0, None)
        with rebuilder(self.bench) as rebuild, suppress(EvaluationError):
            if version := next((each for each in versions if not rebuild.holds(plan, each)), None):
                started = time.monotonic()
                rebuild.bank(plan, version)
                self.pace.rebuilt(time.monotonic() - started)

    def after(self, outcome: Outcome) -> float:
        """Expected time of the remaining steps after the trials [s]."""
        return self.seconds(measurements(outcome, self.bench.is_calibrated)) + self.timing + self.closing

    def seconds(self, asked: Sequence[Measurement]) -> float:
        """Expected time of those measurements that are neither made in this run nor on disk [s]."""
        self.pace.made.update(each for each in asked if each not in self.pace.made and self.stored.holds(each))
        return self.pace.seconds(asked)

    def reserved(self, outcome: Outcome) -> float:
        """Time that the trials must leave for the steps after them [s]."""
        return BUSY * self.after(outcome)

    def left(self, outcome: Outcome, race: Race, trials: int | None, patience: str | int) -> float:
        """Expected time to the end of the run: remaining trials, finalists, guard, timing and reports [s]."""
        left = race.left(trials, patience) * race.trial_seconds + self.after(outcome)
        return min(left, max(self.clock.left(), 0.0))

    def decided(self, outcome: Outcome) -> Outcome:
        """The outcome with its winner, as far as the time allows; the trials must be done."""
        clock = Clock(ends=self.clock.ends - self.closing)

        def step(name: str, done: int, of: int) -> None:
            self.progress.expect(min(self.after(outcome), max(self.clock.left(), 0.0)))
            self.progress.step(name, done, of)

        with rebuilder(self.bench) as rebuild:
            make = self.pace.timed(rebuild.measure)

            def measure(plan: Plan, name: str, version: Version) -> Quality:
                self.pace.made.add((plan, name, version))
                with memory_faults():
                    return self.stored.measure(make, plan, name, version)

            decision = decide(outcome, measure, self.bench.is_calibrated, step, clock, self.seconds)
        return replace(outcome, decision=decision)
