"""A search from the study file to the winner: prepare, race, choose. Each step stores its result, to be resumed."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from paredown.compressors.calibration.statistics_folder import again_if_damaged
from paredown.compressors.original.checkpoint import config_of
from paredown.evaluators.timing import Wrap
from paredown.search.cost.admission import check_names, check_study
from paredown.search.finalists.deployed_times import time_deployed
from paredown.search.finalists.missing import UNMEASURED, completion, unmeasured_rival
from paredown.search.outcome.front_file import stored_outcome
from paredown.search.outcome.outcome import Outcome, Trials
from paredown.search.outcome.progress import Progress
from paredown.search.study.folder import finished, keep_environment
from paredown.search.study.prepare import Prepared, prepare
from paredown.search.study.session import Changed, Session, opened
from paredown.search.trial import Trial, best_within
from paredown.search.trials.clock import Clock, OutOfTime
from paredown.search.trials.database import check_database
from paredown.search.trials.race import Race
from paredown.search.trials.trial_log import TrialLog
from paredown.search.workbench.environment import environment
from paredown.search.workbench.survey import survey
from paredown.space.errors import StudyError
from paredown.space.study_file import StudyFile

PUBLISH_SECONDS = 20.0
"""Least time between two publications of the outcome while trials run [s]."""


def run_study(
    study_file: StudyFile,
    folder: Path,
    progress: Progress,
    wrap: Wrap,
    *,
    bank: Path | None = None,
    workers: int | None = None,
    changed: Changed = "refuse",
    clock: Clock | None = None,
) -> Outcome:
    """Searches in a study folder until a limit of the study is reached, and chooses the winner.

    Args:
        study_file: The study.
        folder: The study folder; a folder of the same study is resumed.
        progress: Receives the progress.
        wrap: Gives the models that are timed to the target's engine.
        bank: Folder of compressed sites; in the study folder by default.
        workers: Processes that fill the bank, and threads of passes in order; one per core by default.
        changed: Reaction if the folder's trials were measured with other inputs.
        clock: Time limit of the run; the study's own, from now on, by default.

    Raises:
        StudyError: If the folder holds another study or is in use.
        BudgetError: If no plan meets the budget; the smallest plan is in ``best/plan.yaml``.
    """
    limit = clock or Clock.of(study_file, time.monotonic())
    if bank and bank.resolve() == folder.resolve():
        raise StudyError(f"{folder} cannot be both --out and --bank; leave out --bank or name another folder")
    check_names(study_file)  # before a model is downloaded
    model, space = survey(study_file)
    check_study(study_file, config_of(model), space)

    def run() -> Outcome:
        with opened(study_file, folder, progress, wrap, limit, bank=bank, workers=workers, changed=changed) as session:
            return _searched(session)

    return again_if_damaged(run, progress.say)


def _searched(session: Session) -> Outcome:
    if before := finished(session.folder, session.study_file):
        _look_at_trials(session)
        session.publish(before)  # restores files that were deleted or that did not fit on the disk
        return before
    keep_environment(session.folder, environment())
    try:
        prepared = prepare(session)
        trials = race(session, prepared)
        return choose_winner(session, prepared, trials)
    except OutOfTime:
        return _out_of_time(session)


def _look_at_trials(session: Session) -> None:
    """Says so if the trials of a finished study cannot be read any more: its plans stand, but it cannot go on."""
    try:
        check_database(session.folder / "study.db")
    except StudyError as damage:
        session.progress.say(f"the study is finished and its plans stand, but {damage}")


def race(session: Session, prepared: Prepared) -> Trials:
    """Runs the trials until one of the study's limits is reached.

    Raises:
        OutOfTime: If the limit leaves no time for the first trial.
        EvaluationError: If many trials in a row fail.
    """
    study_file, clock, schedule, progress = session.study_file, session.clock, prepared.schedule, session.progress
    with session.timed("trials"):
        if clock.is_limited:
            schedule.rehearse(prepared.seeds[0][1].plan)
        log = TrialLog(session.folder / "study.db", with_latency=prepared.latency is not None)
        racing = Race(
            log, prepared.problem, study_file.sampler, prepared.seeds, schedule.measure_rung, prepared.times_of
        )
        published = -math.inf

        def so_far() -> Trials:
            return replace(racing.trials, original_perplexity=prepared.original_perplexity)

        def measured(trial: Trial) -> None:
            nonlocal published
            outcome = session.outcome(so_far(), prepared.latency)
            progress.expect(schedule.left(outcome, racing, study_file.trials, study_file.patience))
            best = best_within(outcome.trials.measured, outcome.question.budget_bytes, outcome.question.max_decode_ms)
            progress.trial(trial, best, outcome.trials.spent, study_file.trials)
            if time.monotonic() - published > PUBLISH_SECONDS:
                session.publish(outcome)
                published = time.monotonic()

        try:
            racing.run(
                trials=study_file.trials, finished=measured, clock=clock, patience=study_file.patience,
                reserved=lambda: schedule.reserved(session.outcome(so_far(), prepared.latency)),
            )  # fmt: skip
        except BaseException:
            if racing.history:
                session.publish(session.outcome(so_far(), prepared.latency, state="stopped"))
            raise
        if clock.is_limited and not racing.history and not racing.failed:
            raise OutOfTime
    session.publish(session.outcome(so_far(), prepared.latency))
    return so_far()


def choose_winner(session: Session, prepared: Prepared, trials: Trials) -> Outcome:
    """The outcome with its winner, chosen on fresh texts and timed as deployed, as far as the time allows."""
    schedule, problem = prepared.schedule, prepared.problem
    with session.timed("finalists"):
        outcome = schedule.decided(session.outcome(trials, prepared.latency, state="finished"))
        outcome = unmeasured_rival(outcome, of=len(prepared.seeds))
        if not outcome.decision.is_complete:
            command = completion(
                session.study_file, session.folder, session.bank_folder, schedule.after(outcome), len(prepared.seeds)
            )
            outcome = replace(outcome, decision=replace(outcome.decision, completion=command))
        if prepared.latency and outcome.decision.winner is not None:
            outcome = _timed(session, outcome, schedule.timing)
    outcome = replace(
        outcome,
        circumstances=replace(outcome.circumstances, seconds=dict(session.seconds)),
        prices=problem.solver.prices(problem.losses, problem.budget_bytes),
    )
    session.publish(outcome)
    return outcome


def _timed(session: Session, outcome: Outcome, seconds: float) -> Outcome:
    """The outcome with the times of the deployed models, if there is time to measure them."""
    bench, progress = session.bench, session.progress
    if not session.clock.has(seconds):
        progress.say("no time was left to time the deployed models: only predicted times are reported")
        return outcome
    build = partial(bench.deployed, session.wrap)
    timed = time_deployed(outcome, build, bench.deployed_at_once, progress.step, progress.say)
    return replace(outcome, timed=timed)


def _out_of_time(session: Session) -> Outcome:
    """Outcome of a run that hit its limit before its first trial: earlier trials, else the provisional plan."""
    folder, before = session.folder, stored_outcome(session.folder)
    if before and before.state == "finished":
        return before
    if before is None and (folder / "study.db").is_file():  # front.json is damaged, but the trials are there
        raise StudyError(f"the limit came before {folder}/front.json was rewritten; give a longer --timeout")
    outcome = before or session.outcome(Trials())
    if not outcome.trials.measured:
        session.progress.say("the limit came before the first trial: the plan was not measured")
        outcome = replace(
            outcome,
            decision=replace(outcome.decision, unguarded=UNMEASURED),
            circumstances=replace(outcome.circumstances, seconds=dict(session.seconds)),
        )
    command = completion(session.study_file, folder, session.bank_folder)
    outcome = replace(outcome, state="stopped", decision=replace(outcome.decision, completion=command))
    session.publish(outcome)
    return outcome
