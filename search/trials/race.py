"""Trials of a study in an Optuna database, resumable at any moment."""

from __future__ import annotations

import math
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from paredown.evaluators.door import memory_faults
from paredown.evaluators.quality import Quality
from paredown.search.samplers import Proposal, Question, Sampler, Warm, samplers
from paredown.search.trial import Record
from paredown.search.trials.clock import Clock
from paredown.search.trials.database import check_database, damaged, database_url
from paredown.search.trials.patience import Patience
from paredown.space.choice import parse_choice
from paredown.space.errors import EvaluationError, OutputError, StudyError
from paredown.space.plan import Plan
from paredown.space.plan_file import choices_of
from paredown.space.system.files import DAMAGE, reason_of
from paredown.space.system.interruption import stop_if_asked
from paredown.space.system.locks import held

ATTRIBUTE = "paredown"
MEASURED = (TrialState.COMPLETE, TrialState.PRUNED)
MOST_FAILURES = 10
"""Trials in a row that may fail before the search ends with an error."""

Measure = Callable[[Plan, int | None], Quality]
"""Quality of a plan on the first sequences of the search set; None for all of them."""

Latency = Callable[[Plan], tuple[float | None, float] | None]
"""Predicted times of a plan, decode (None for encoders) and prefill [ms/token]; None where unknown."""


class TrialLog:
    """Trial database of a study, in SQLite; each trial is written before the next begins.

    Args:
        path: The database; created if missing.
        with_latency: Whether time is a third objective beside size and loss.
    """

    def __init__(self, path: Path, *, with_latency: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = [optuna.study.StudyDirection.MINIMIZE] * (3 if with_latency else 2)
        check_database(path)
        with _database(path):
            storage = RDBStorage(database_url(path), engine_kwargs={"connect_args": {"timeout": 60}})
            event.listen(storage.engine, "connect", _durable)
            storage.engine.dispose()
            self.path = path
            sampler = optuna.samplers.RandomSampler(seed=0)  # unused: plans come from paredown's own `Sampler`
            self.study = optuna.create_study(
                storage=storage, study_name="paredown", directions=directions, sampler=sampler, load_if_exists=True
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.set_metric_names(["size_bytes", "loss", "time_ms"][: len(directions)])
        self.with_latency = with_latency

    def records(self) -> list[Record]:
        """All measured trials, by number; lower rungs included."""
        with _database(self.path):
            trials = self.study.get_trials(deepcopy=False, states=MEASURED)
            return [Record.from_mapping(trial.user_attrs[ATTRIBUTE]) for trial in trials]

    def open_trials(self) -> list[optuna.trial.FrozenTrial]:
        """Trials that were begun but not finished because an earlier process was interrupted."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def reopen(self, trial: optuna.trial.FrozenTrial) -> optuna.Trial:
        """The interrupted trial, open again."""
        with _database(self.path):
            return optuna.Trial(self.study, trial._trial_id)

    def failed(self) -> dict[int, Plan]:
        """Plans that could not be measured, by trial number."""
        with _database(self.path):
            trials = self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
            choices = {trial.number: trial.user_attrs["choices"] for trial in trials if "choices" in trial.user_attrs}
            return {
                number: Plan(tuple((site, parse_choice(c)) for site, c in named.items()))
                for number, named in choices.items()
            }

    def ask(self) -> optuna.Trial:
        """A new trial."""
        with _database(self.path):
            return self.study.ask()

    def tell(self, trial: optuna.Trial, record: Record, budget_bytes: int) -> None:
        """Finishes a trial: over the budget it is infeasible, below the whole search set it is pruned."""
        excess = float(record.size_bytes - budget_bytes)
        with _database(self.path):
            trial.set_user_attr(ATTRIBUTE, record.to_mapping())
            if "budget" not in trial.constraints:  # set if the process died after this line; a second call would warn
                trial.set_constraint("budget", excess)
            # the dashboard reads this attribute
            self.study._storage.set_trial_system_attr(trial._trial_id, "constraints", [excess])
            if record.whole:
                self.study.tell(trial, record.objectives(timed=self.with_latency))
            else:
                self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: optuna.Trial, reason: str, plan: Plan | None = None) -> None:
        """Finishes a trial whose plan could not be measured."""
        with _database(self.path):
            if plan is not None:
                trial.set_user_attr("choices", choices_of(plan))
            trial.set_user_attr("failure", reason)
            self.study.tell(trial, state=TrialState.FAIL)


class Race:
    """Runs trials until their number, the clock or patience ends them.

    Args:
        log: Trial database.
        question: The question that samplers answer.
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
        question: Question,
        sampler: str,
        seeds: Sequence[tuple[str, Proposal]],
        measure: Measure,
        latency: Latency,
    ) -> None:
        self.log, self.question, self.seeds = log, question, seeds
        self.origin = sampler
        self.sampler: Sampler = samplers[sampler](question)
        self.measure, self.latency = measure, latency
        self.history = {record.number: record for record in log.records()}
        self.failed = log.failed()
        self.ended = ""
        self._seconds = self._shares = 0.0

    def run(
        self,
        *,
        trials: int | None,
        finished: Callable[[Record], None],
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
                record = self._evaluate(trial.number, origin, proposal, started)
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
                self.log.tell(trial, record, self.question.budget_bytes)
                self.history[record.number] = record
                self._seconds += record.seconds
                self._shares += record.share_of(self.question.sequences)
                finished(record)
            longest = max(longest, time.monotonic() - started)

    @property
    def measured(self) -> list[Record]:
        """Trials measured on the whole search set, by number."""
        return [record for record in self._known if record.whole]

    @property
    def spent(self) -> float:
        """Cost of all trials so far, in trials on the whole search set; a failed trial counts as a whole one."""
        return len(self.failed) + sum(record.share_of(self.question.sequences) for record in self.history.values())

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
        return Patience(asked=asked, question=self.question, first=len(self.seeds))

    def _is_out_of(self, patience: str | int) -> bool:
        if patience != "off":
            self.ended = self._patience(patience).ended(self._known, self.failed)
        return bool(self.ended)

    @property
    def _known(self) -> list[Record]:
        return [record for _, record in sorted(self.history.items())]

    def _propose(self, trial: optuna.Trial) -> tuple[str, Proposal]:
        if trial.number < len(self.seeds):
            if isinstance(self.sampler, Warm):
                self.sampler.seeded(trial, self.seeds[trial.number][1].plan)
            return self.seeds[trial.number]
        history = [record for record in self._known if record.number < trial.number]
        failed = frozenset(plan for number, plan in self.failed.items() if number < trial.number)
        return self.origin, self.sampler.propose(trial, history, failed)

    def _evaluate(self, number: int, origin: str, proposal: Proposal, started: float) -> Record:
        plan = proposal.plan
        rung = proposal.sequences if (proposal.sequences or self.question.sequences) < self.question.sequences else None
        same = next(
            (record for record in self.history.values() if record.plan == plan and record.whole and rung is None), None
        )
        with memory_faults():
            found = same or self.measure(plan, rung)
        decode_ms, prefill_ms = self.latency(plan) or (None, None)
        known: dict[str, Any] = {"number": number, "origin": origin, "label": proposal.label}
        known |= {"predicted_loss": proposal.predicted_loss, "expected_gain": proposal.expected_gain}
        known |= {"decode_ms": decode_ms, "prefill_ms": prefill_ms, "seconds": time.monotonic() - started}
        if isinstance(found, Record):
            return replace(found, **known)
        return Record.of(plan, found, self.question.space.inventory, whole=rung is None, **known)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a study folder for this process.

    Raises:
        StudyError: If another process holds it.
        OutputError: If the folder cannot be written.
    """
    with held(
        folder,
        StudyError(f"another search runs in {folder}; wait for it, stop it, or choose another folder with --out"),
    ):
        yield


@contextmanager
def _database(path: Path) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        found = getattr(cause, "orig", None) or cause
        reason = str(found).splitlines()[0]
        if "no such" in reason or (
            isinstance(found, sqlite3.DatabaseError) and not isinstance(found, sqlite3.OperationalError)
        ):
            raise damaged(path, reason) from None
        raise OutputError(
            f"cannot write {path}: {reason}; free some space, then run the same command again to resume"
        ) from None
    except DAMAGE as error:
        raise damaged(path, reason_of(error)) from None


def _durable(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
