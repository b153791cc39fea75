"""The race of a study's trials: proposed, measured and logged one after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import optuna

from paredown.evaluators.door import memory_faults
from paredown.evaluators.quality import Quality
from paredown.search.outcome.outcome import Trials
from paredown.search.samplers import Problem, Proposal, Sampler, Warm, samplers
from paredown.search.trial import Expectation, Times, Trial
from paredown.search.trials.clock import Clock
from paredown.search.trials.patience import Patience
from paredown.search.trials.trial_log import TrialLog
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan
from paredown.space.system.interruption import stop_if_asked

MOST_FAILURES = 10
"""Trials in a row that may fail before the search ends with an error."""

Measure = Callable[[Plan, int | None], Quality]
"""Quality of a plan on the first sequences of the search set; None for all of them."""

Latency = Callable[[Plan], tuple[float | None, float] | None]
"""Predicted times of a plan, decode (None for encoders) and prefill [ms/token]; None where unknown."""


class Race:
    """Runs trials until their number, the clock or patience ends them.

    Args:
        log: Trial database.
        problem: The problem that the sampler works on.
        sampler: Name of the sampler.
        seeds: Plans to measure first, each with its origin.
        measure: Measures a plan on the search set.
        latency: Predicts a plan's times; None where unknown.

    Attributes:
        ended: Sentence that says why patience ended the trials; empty if something else did.
    """

    def __init__(
        self,
        log: TrialLog,
        problem: Problem,
        sampler: str,
        seeds: Sequence[tuple[str, Proposal]],
        measure: Measure,
        latency: Latency,
    ) -> None:
        self.log, self.problem, self.seeds = log, problem, seeds
        self.origin = sampler
        self.sampler: Sampler = samplers[sampler](problem)
        self.measure, self.latency = measure, latency
        self.history = {trial.number: trial for trial in log.measured()}
        self.failed = log.failed()
        self.ended = ""
        self._seconds = self._shares = 0.0

    def run(
        self,
        *,
        trials: int | None,
        finished: Callable[[Trial], None],
        clock: Clock = Clock(),  # noqa: B008 - a frozen value
        reserved: Callable[[], float] = lambda: 0.0,
        patience: str | int = "off",
    ) -> None:
        """Measures plans until one of the limits is reached.

        The limits are the forward passes of ``trials`` whole trials, the clock (no trial begins that would end too
        late), and ``patience`` as in `Patience`.

        Args:
            trials: Number of whole trials whose forward passes may be spent; None without a limit.
            finished: Called with each measured trial.
            clock: Time limit of the run.
            reserved: Time that the steps after the trials need [s].
            patience: ``auto``, ``off``, or the number of trials without a better plan.

        Raises:
            EvaluationError: If `MOST_FAILURES` trials in a row fail.
        """
        pending = self.log.open_trials()
        failures = 0
        longest = 0.0
        while (trials is None or self.spent < trials) and clock.has(
            longest + (reserved() if clock.is_limited else 0.0)
        ):
            stop_if_asked()
            if self._is_out_of(patience):
                break
            started = time.monotonic()
            trial = self.log.reopen(pending.pop(0)) if pending else self.log.ask()
            origin, proposal = self._propose(trial)
            try:
                measured = self._evaluate(trial.number, origin, proposal, started)
            except (EvaluationError, MemoryError) as error:
                failures += 1
                self.log.fail(trial, str(error) or "out of memory", proposal.plan)
                self.failed[trial.number] = proposal.plan
                if failures >= MOST_FAILURES:
                    raise EvaluationError(
                        f"{failures} trials in a row failed, the last one: {error}; the measured trials are kept"
                    ) from None
            else:
                failures = 0
                self.log.tell(trial, measured, self.problem.budget_bytes)
                self.history[measured.number] = measured
                self._seconds += measured.seconds
                self._shares += measured.share_of(self.problem.sequences)
                finished(measured)
            longest = max(longest, time.monotonic() - started)

    @property
    def measured(self) -> list[Trial]:
        """Trials measured on the whole search set, by number."""
        return [trial for trial in self._known if trial.read.whole]

    @property
    def trials(self) -> Trials:
        """The trials so far, as an outcome holds them."""
        measured = self.measured
        return Trials(
            measured=tuple(measured),
            stopped_early=len(self.history) - len(measured),
            failed=len(self.failed),
            spent=self.spent,
            ended=self.ended,
        )

    @property
    def spent(self) -> float:
        """Cost of all trials so far, in trials on the whole search set; a failed trial counts as a whole one."""
        return len(self.failed) + sum(trial.share_of(self.problem.sequences) for trial in self.history.values())

    @property
    def trial_seconds(self) -> float:
        """Time of a whole trial in this run [s]; 0 before the first."""
        return self._seconds / self._shares if self._shares else 0.0

    def left(self, trials: int | None, patience: str | int) -> float:
        """Most whole trials left if none finds a better plan; infinite if only the clock ends them."""
        left = [math.inf if trials is None else max(trials - self.spent, 0.0)]
        if patience != "off":
            left.append(0.0 if self.ended else self._patience(patience).left(self._known, self.failed))
        return min(left)

    def _patience(self, asked: str | int) -> Patience:
        return Patience(asked=asked, problem=self.problem, first=len(self.seeds))

    def _is_out_of(self, patience: str | int) -> bool:
        if patience != "off":
            self.ended = self._patience(patience).ended(self._known, self.failed)
        return bool(self.ended)

    @property
    def _known(self) -> list[Trial]:
        return [trial for _, trial in sorted(self.history.items())]

    def _propose(self, trial: optuna.Trial) -> tuple[str, Proposal]:
        if trial.number < len(self.seeds):
            if isinstance(self.sampler, Warm):
                self.sampler.seeded(trial, self.seeds[trial.number][1].plan)
            return self.seeds[trial.number]
        history = [past for past in self._known if past.number < trial.number]
        failed = frozenset(plan for number, plan in self.failed.items() if number < trial.number)
        return self.origin, self.sampler.propose(trial, history, failed)

    def _evaluate(self, number: int, origin: str, proposal: Proposal, started: float) -> Trial:
        plan = proposal.plan
        rung = proposal.sequences if (proposal.sequences or self.problem.sequences) < self.problem.sequences else None
        same = next(
            (trial for trial in self.history.values() if trial.plan == plan and trial.read.whole and rung is None), None
        )
        with memory_faults():
            found = same or self.measure(plan, rung)
        decode_ms, prefill_ms = self.latency(plan) or (None, None)
        known: dict[str, Any] = {"number": number, "origin": origin, "label": proposal.label}
        known |= {"expected": Expectation(loss=proposal.predicted_loss, gain=proposal.expected_gain)}
        known |= {"times": Times(decode_ms=decode_ms, prefill_ms=prefill_ms), "seconds": time.monotonic() - started}
        if isinstance(found, Trial):
            return replace(found, **known)
        return Trial.of(plan, found, self.problem.space.inventory, whole=rung is None, **known)
