"""Time budget of a run: forecast from the measured pace, and the reserve for the steps after the trials."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from paredown.evaluators.door import memory_faults
from paredown.evaluators.quality import Quality
from paredown.search.finalists.checks import DRAWS
from paredown.search.finalists.decide import decide
from paredown.search.finalists.finalists import measurements
from paredown.search.finalists.pace import Measurement
from paredown.search.finalists.rebuild import Version, rebuilder
from paredown.search.outcome.outcome import Outcome
from paredown.search.study.session import Session
from paredown.search.trials.clock import Clock
from paredown.search.trials.race import Race
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan

BUSY = 1.25
"""Safety factor on the expected time of the steps after the trials, for the reserve under a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Measures a session's plans and forecasts the time of the rest of its run.

    Attributes:
        session: The session.
        timing: Expected time to time the deployed models [s].
    """

    session: Session
    timing: float

    def measure_rung(self, plan: Plan, sequences: int | None) -> Quality:
        """Quality of a plan on the first sequences of the search set; None for all of them."""
        bench, pace = self.session.bench, self.session.pace
        started = time.monotonic()
        quality = bench.evaluator.measure_rung(plan, sequences)
        share = 1.0 if sequences is None else sequences / len(bench.texts.sequences["search"])
        pace.read(share * pace.tokens["search"], time.monotonic() - started)
        return quality

    def rehearse(self, plan: Plan) -> None:
        """Compresses the solver's plan in order, as finalists are, so that its time is known before the trials."""
        bench, pace = self.session.bench, self.session.pace
        versions = [Version(in_order=True, draw=draw) for draw in range(DRAWS)]
        needed = 2 * pace.seconds([(plan, "selection", versions[0])])
        if not bench.is_calibrated(plan) or not self.session.clock.has(needed):
            return
        self.session.progress.step("the solver's plan in order", 0, None)
        with rebuilder(bench) as rebuild, suppress(EvaluationError):
            if version := next((each for each in versions if not rebuild.holds(plan, each)), None):
                started = time.monotonic()
                rebuild.bank(plan, version)
                pace.rebuilt(time.monotonic() - started)

    def after(self, outcome: Outcome) -> float:
        """Expected time of the remaining steps after the trials [s]."""
        measured = self.seconds(measurements(outcome, self.session.bench.is_calibrated))
        return measured + self.timing + self.session.pace.closing

    def seconds(self, asked: Sequence[Measurement]) -> float:
        """Expected time of those measurements that are neither made in this run nor on disk [s]."""
        pace = self.session.pace
        pace.made.update(each for each in asked if each not in pace.made and self.session.stored.holds(each))
        return pace.seconds(asked)

    def reserved(self, outcome: Outcome) -> float:
        """Time that the trials must leave for the steps after them [s]."""
        return BUSY * self.after(outcome)

    def left(self, outcome: Outcome, race: Race, trials: int | None, patience: str | int) -> float:
        """Expected time to the end of the run: remaining trials, finalists, guard, timing and reports [s]."""
        left = race.left(trials, patience) * race.trial_seconds + self.after(outcome)
        return min(left, max(self.session.clock.left(), 0.0))

    def decided(self, outcome: Outcome) -> Outcome:
        """The outcome with its winner, as far as the time allows; the trials must be done."""
        bench, pace, limit, progress = self.session.bench, self.session.pace, self.session.clock, self.session.progress

        def step(name: str, done: int, of: int) -> None:
            progress.expect(min(self.after(outcome), max(limit.left(), 0.0)))
            progress.step(name, done, of)

        with rebuilder(bench) as rebuild:
            make = pace.timed(rebuild.measure)

            def measure(plan: Plan, name: str, version: Version) -> Quality:
                pace.made.add((plan, name, version))
                with memory_faults():
                    return self.session.stored.measure(make, plan, name, version)

            clock = Clock(ends=limit.ends - pace.closing)
            decision = decide(outcome, measure, bench.is_calibrated, step, clock, self.seconds)
        return replace(outcome, decision=decision)
