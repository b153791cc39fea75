"""Log of a study's trials: an Optuna database, resumable at any moment."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from paredown.search.trial import Trial
from paredown.search.trials.database import check_database, damaged, database_url
from paredown.space.choice import parse_choice
from paredown.space.errors import OutputError, write_remedy
from paredown.space.plan import Plan
from paredown.space.plan_file import choices_of
from paredown.space.system.files import DAMAGE, reason_of
from paredown.space.system.temporary import replaced_file

ATTRIBUTE = "paredown"
"""Optuna's user attribute that holds a trial."""

MEASURED = (TrialState.COMPLETE, TrialState.PRUNED)


class TrialLog:
    """Trial database of a study, in SQLite; each trial is written before the next begins.

    Args:
        path: The database; created if missing.
        with_latency: Whether time is a third objective beside size and loss.
    """

    def __init__(self, path: Path, *, with_latency: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        check_database(path)
        names = ["size_bytes", "loss", "time_ms"][: 3 if with_latency else 2]
        with _database(path):
            if not path.is_file() or not path.stat().st_size:
                _create(path, names)
            self.path, self.study = path, _study(_storage(path), names)
        self.with_latency = with_latency

    def measured(self) -> list[Trial]:
        """All measured trials, by number; lower rungs included."""
        with _database(self.path):
            trials = self.study.get_trials(deepcopy=False, states=MEASURED)
            return [Trial.from_mapping(trial.user_attrs[ATTRIBUTE]) for trial in trials]

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

    def tell(self, trial: optuna.Trial, measured: Trial, budget_bytes: int) -> None:
        """Finishes a trial: over the budget it is infeasible, below the whole search set it is pruned."""
        excess = float(measured.size_bytes - budget_bytes)
        with _database(self.path):
            trial.set_user_attr(ATTRIBUTE, measured.to_mapping())
            if "budget" not in trial.constraints:  # set if the process died after this line; a second call would warn
                trial.set_constraint("budget", excess)
            # the dashboard reads this attribute
            self.study._storage.set_trial_system_attr(trial._trial_id, "constraints", [excess])
            if measured.read.whole:
                self.study.tell(trial, measured.objectives(timed=self.with_latency))
            else:
                self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: optuna.Trial, reason: str, plan: Plan | None = None) -> None:
        """Finishes a trial whose plan could not be measured."""
        with _database(self.path):
            if plan is not None:
                trial.set_user_attr("choices", choices_of(plan))
            trial.set_user_attr("failure", reason)
            self.study.tell(trial, state=TrialState.FAIL)


def _create(path: Path, names: list[str]) -> None:
    """Makes a database as a whole: Optuna could not open what a kill among its many statements leaves."""
    with replaced_file(path) as new:
        storage = _storage(new)
        _study(storage, names)
        storage.engine.dispose()
        for left in ("-wal", "-shm"):  # beside a database that was moved away
            path.with_name(path.name + left).unlink(missing_ok=True)


def _storage(path: Path) -> RDBStorage:
    storage = RDBStorage(database_url(path), engine_kwargs={"connect_args": {"timeout": 60}})
    event.listen(storage.engine, "connect", _durable)
    storage.engine.dispose()
    return storage


def _study(storage: RDBStorage, names: list[str]) -> optuna.Study:
    """The study in a database, with objectives of these names; created if it is missing."""
    study = optuna.create_study(
        storage=storage, study_name="paredown", directions=["minimize"] * len(names), load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(seed=0),  # unused: plans come from paredown's own `Sampler`
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(names)
    return study


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
    except OSError as error:
        remedy = f"{write_remedy(error)}, then run the same command again to resume"
        raise OutputError(f"cannot write {path}: {error.strerror}; {remedy}") from None
    except DAMAGE as error:
        raise damaged(path, reason_of(error)) from None


def _durable(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
