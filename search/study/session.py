"""From a study file to a plan: each step stores its result, so that the next run resumes from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from paredown.compressors.bank.contents import USED, name_used
from paredown.compressors.bank.folder import bank_in_use
from paredown.compressors.calibration.statistics_folder import again_if_damaged
from paredown.compressors.original.checkpoint import config_of
from paredown.evaluators.latency import REMEDY, LatencyTable, deployed_plan, timing_seconds
from paredown.search.cost.admission import check_study
from paredown.search.finalists.deployed_times import time_deployed
from paredown.search.finalists.measurements import MEASUREMENTS, Measurements
from paredown.search.finalists.missing import UNMEASURED, completion, unmeasured_rival
from paredown.search.finalists.scored import scored_records
from paredown.search.outcome.front_file import stored_outcome
from paredown.search.outcome.outcome import Outcome, Provisional, Trials
from paredown.search.outcome.plan_files import publish, unmeasured_file
from paredown.search.outcome.progress import Progress
from paredown.search.outcome.question import Question
from paredown.search.samplers import Problem, Proposal
from paredown.search.sensitivity.lazy_choices import data_free, is_lazy, narrowed
from paredown.search.sensitivity.sensitivity import Sensitivity, stored_losses
from paredown.search.solver.limits import decode_limit
from paredown.search.solver.solver import Solver
from paredown.search.study.folder import finished, keep_environment, locked, moved_aside, same_study, tidy
from paredown.search.study.impossible_budget import refuse_impossible
from paredown.search.study.limit import check_limit
from paredown.search.study.schedule import Schedule
from paredown.search.trial import Trial, best_within
from paredown.search.trials.clock import Clock, OutOfTime
from paredown.search.trials.database import check_database
from paredown.search.trials.first_plans import first_plans, seed_plans
from paredown.search.trials.race import Race
from paredown.search.trials.trial_log import TrialLog
from paredown.search.trials.uniform import uniform_plans
from paredown.search.workbench import inputs as study_inputs
from paredown.search.workbench.environment import environment
from paredown.search.workbench.inputs import Inputs
from paredown.search.workbench.survey import reference_of, survey
from paredown.search.workbench.workbench import Workbench
from paredown.space.errors import StudyError
from paredown.space.plan import Plan
from paredown.space.site import Inventory
from paredown.space.space import Space
from paredown.space.study_file import StudyFile
from paredown.space.system.files import write_atomically

PUBLISH_SECONDS = 20.0
"""Least time between two publications of the outcome while trials run [s]."""

Changed = Literal["refuse", "fresh", "adopt"]


class Session:
    """A search in a study folder.

    Args:
        question: The study.
        folder: The study folder; a folder of the same study is resumed.
        progress: Receives the progress.
        bank: Folder of compressed sites; in the study folder by default.
        workers: Processes that fill the bank, and threads of passes in order; one per core by default.
        changed: Reaction if the folder's trials were measured with other weights, texts or libraries: ``refuse``;
            ``fresh`` moves the folder aside and starts over; ``adopt`` resumes with the trials as they are.
        began: Start of the run on the clock of `time.monotonic` [s]; now by default.
    """

    def __init__(
        self,
        question: StudyFile,
        folder: Path,
        progress: Progress,
        bank: Path | None = None,
        workers: int | None = None,
        changed: Changed = "refuse",
        began: float | None = None,
    ) -> None:
        self.question, self.folder, self.progress, self.workers = question, folder, progress, workers
        self.changed = changed
        self.bank_folder = bank or folder / "bank"
        self.clock = Clock.of(question, time.monotonic() if began is None else began)
        self.seconds: dict[str, float] = {}
        self.original_perplexity: float | None = None
        self.latency: LatencyTable | None = None

    def run(self) -> Outcome:
        """Searches until a limit of the study is reached, and chooses the winner.

        Raises:
            StudyError: If the folder holds another study or is in use.
            BudgetError: If no plan meets the budget; the smallest plan is in ``best/plan.yaml``.
        """
        if self.bank_folder.resolve() == self.folder.resolve():
            raise StudyError(f"{self.folder} cannot be both --out and --bank; leave out --bank or name another folder")
        folder, space = survey(self.question)
        check_study(self.question, config_of(folder), space)
        return again_if_damaged(self._run, self.progress.say)

    def _run(self) -> Outcome:
        with ExitStack() as self._locks:
            self._locks.enter_context(locked(self.folder))
            if words := check_limit(self.question, self.clock, self.folder):
                self.progress.say(words)
            same_study(self.folder, self.question)
            tidy(self.folder)
            self._locks.enter_context(bank_in_use(self.bank_folder))
            started = time.monotonic()
            self.progress.step("model and texts", 0, None)
            self.bench = Workbench.open(
                self.question, self.bank_folder, self.workers, self._check_inputs, self.progress.say
            )
            inventory = self.bench.space.inventory
            self.reference = reference_of(self.question, self.bench.banks.checkpoint, inventory)
            write_atomically(self.folder / "inventory.json", TypeAdapter(Inventory).dump_json(inventory, indent=1))
            stored = Measurements(
                self.folder / MEASUREMENTS,
                self.inputs,
                lambda draw: self.bench.texts.calibration(draw).sha256(),
                self.progress.say,
            )
            self.schedule = Schedule(self.clock, self.bench, self.progress, stored)
            if before := finished(self.folder, self.question):
                self._look_at_trials()
                self._publish(before)  # restores files that were deleted or that did not fit on the disk
                return before
            keep_environment(self.folder, environment())
            self.solver = Solver(self.bench.space)
            self.budget_bytes = self._budget(inventory)
            self._keep_time("model and texts", started)
            try:
                self._prepare()
                return self._search()
            except OutOfTime:
                return self._out_of_time()

    def _look_at_trials(self) -> None:
        """Says so if the trials of a finished study cannot be read any more: its plans stand, but it cannot go on."""
        try:
            check_database(self.folder / "study.db")
        except StudyError as damage:
            self.progress.say(f"the study is finished and its plans stand, but {damage}")

    def _prepare(self) -> None:
        """Prepares bank, sensitivities and latency table; ``best/plan.yaml`` always holds the best plan known so far.

        Raises:
            OutOfTime: At the limit.
        """
        started = time.monotonic()
        self.uniform = uniform_plans(self.bench.space, self.budget_bytes)
        if fitting := [plan for plan in self.uniform if plan.size_bytes <= self.budget_bytes]:
            largest = max(fitting, key=lambda plan: plan.size_bytes)
            self._offer("uniform", Proposal(plan=largest.plan, label=largest.label))
        if is_lazy(self.question, self.bench.space):
            self._narrow()
        self._fill([plan.plan for plan in self.uniform])
        self._keep_time("bank", started)
        started = time.monotonic()
        self.losses = self._sensitivity()
        if self.question.max_decode_ms is None:
            self._solve()
        self._keep_time("sensitivity", started)
        started = time.monotonic()
        self.progress.step("latency", 0, None)
        self.latency = self._latency()
        self.schedule.timing = timing_seconds(self.latency, 3) if self.latency else 0.0
        if self.latency and self.question.max_decode_ms is not None:
            space = self.bench.space
            self.solver = Solver(space, limits=[decode_limit(space, self.latency, self.question.max_decode_ms)])
            self.solver.solve(self.losses, self.budget_bytes)  # raises an error that names the budget or limit at fault
            self._solve()
        self._keep_time("latency", started)

    def _solve(self) -> None:
        """Solves for the seed plans and offers the one for the budget."""
        self.problem = Problem.of(self.question, self.solver, self.losses, len(self.bench.texts.sequences["search"]))
        self.solved = seed_plans(self.problem, [plan.size_bytes for plan in self.uniform])
        if found := self._offer("solver", self.solved[0]):
            what = f"{found.size_bytes:,} bytes, predicted loss {found.predicted_loss:.3g}, not measured yet"
            self.progress.say(f"the solver's plan can be applied now: {self.folder / 'best' / 'plan.yaml'}, {what}")

    def _offer(self, origin: str, proposal: Proposal) -> Provisional | None:
        """Writes a plan that can be applied; None if a trial was already measured."""
        before = stored_outcome(self.folder)
        if before.trials.measured if before else (self.folder / "study.db").is_file():
            return None
        size = proposal.plan.size_bytes(self.bench.space.inventory)
        found = Provisional(
            origin=origin, label=proposal.label, size_bytes=size, predicted_loss=proposal.predicted_loss
        )
        self.outcome = self._outcome(state="searching", provisional=found)
        unmeasured_file(self.outcome, found, proposal.plan, self.reference).write(self.folder / "best" / "plan.yaml")
        self._publish(self.outcome)
        return found

    def _out_of_time(self) -> Outcome:
        """Outcome of a run that hit its limit before its first trial: earlier trials, else the provisional plan."""
        before = stored_outcome(self.folder)
        if before and before.state == "finished":
            return before
        if before is None and (self.folder / "study.db").is_file():  # front.json is damaged, but the trials are there
            raise StudyError(f"the limit came before {self.folder}/front.json was rewritten; give a longer --timeout")
        outcome = before or self._outcome()
        if not outcome.trials.measured:
            self.progress.say("the limit came before the first trial: the plan was not measured")
            outcome = replace(
                outcome,
                decision=replace(outcome.decision, unguarded=UNMEASURED),
                circumstances=replace(outcome.circumstances, seconds=dict(self.seconds)),
            )
        command = completion(self.question, self.folder, self.bank_folder)
        outcome = replace(outcome, state="stopped", decision=replace(outcome.decision, completion=command))
        self._publish(outcome)
        return outcome

    def _check_inputs(self, found: Inputs) -> None:
        """Checks that the folder's trials were measured with these inputs, and writes the inputs there.

        Raises:
            StudyError: If they were not, and ``changed`` is ``refuse``.
        """
        changed = study_inputs.changes(self.folder, found)
        if changed and self.changed == "refuse":
            raise study_inputs.refuse(self.folder, changed)
        if changed and self.changed == "fresh":
            aside = moved_aside(self.folder)
            self._locks.enter_context(locked(self.folder))
            same_study(self.folder, self.question)
            self._locks.enter_context(bank_in_use(self.bank_folder))
            self.progress.say(f"the previous study was moved to {aside}")
            changed = []
        study_inputs.keep(self.folder, found, changed)
        self.inputs = {**found.texts, "origin": found.origin.sha256()}

    def _budget(self, inventory: Inventory) -> int:
        asked = inventory.budget_bytes(self.question.budget)
        refuse_impossible(self.solver, asked, self.reference, self.folder / "best" / "plan.yaml")
        if asked >= inventory.original_bytes:
            self.progress.say(
                f"the budget of {asked:,} bytes is not below the original's {inventory.original_bytes:,}: "
                "everything may be kept"
            )
        return asked

    def _sensitivity(self) -> Sensitivity:
        self.original_perplexity = self.schedule.measure_original().perplexity
        return self._losses(self.bench.space, "sensitivity.json")

    def _losses(self, space: Space, name: str) -> Sensitivity:
        inputs = [self.inputs[name] for name in ("calibration", "search", "origin")]
        return stored_losses(
            self.folder / name, self.question.sensitivity, inputs, space, self.bench.planned, self.bench.bank,
            self.bench.texts.sequences["search"], partial(self._step, "sensitivity"),
        )  # fmt: skip

    def _fill(self, beside: Sequence[Plan] = ()) -> None:
        self.bench.fill_bank(beside, partial(self._step, "bank"))
        name_used(self.folder / USED, self.bench.bank.calibration, self.bench.bank.used)

    def _step(self, name: str, done: int, of: int) -> None:
        """Reports a step before the trials; raises `OutOfTime` at the limit."""
        self.progress.step(name, done, of)
        self.clock.check()

    def _narrow(self) -> None:
        """Removes the calibrated choices that lie far from the front of their data-free siblings."""
        offered = self.bench.space
        free = data_free(offered)
        self.bench = replace(self.bench, space=free)
        self._fill()
        losses = self._losses(free, "sensitivity-data-free.json")
        self.bench = replace(self.bench, space=narrowed(offered, free, losses, self.budget_bytes))
        self.solver = Solver(self.bench.space)
        before, now = (sum(map(len, space.options.values())) for space in (offered, self.bench.space))
        self.progress.say(
            f"lazy bank: {now:,} of {before:,} choices lie near the budget; other calibrated choices are not compressed"
        )

    def _latency(self) -> LatencyTable | None:
        if self.question.latency == "off":
            return None
        path = self.folder / "latency.json" if self.question.latency == "measure" else Path(self.question.latency)
        plans = [plan.plan for plan in self.uniform]
        table = self.bench.latency_table(path, plans, self.clock.check)
        if lacking := table.lacking(self.bench.space, plans):
            self.progress.say(
                f"the latency table {path} lacks {len(lacking)} kernels of this study ({lacking[0]}): "
                f"plans with such a kernel get no predicted time; {REMEDY}"
            )
        return table

    def _search(self) -> Outcome:
        started = time.monotonic()
        if self.clock.is_limited:
            self.schedule.rehearse(self.solved[0].plan)
        race = self._race()
        self._published = 0.0

        def measured(trial: Trial) -> None:
            best = best_within(race.measured, self.budget_bytes, self.question.max_decode_ms)
            self.progress.expect(
                self.schedule.left(self._outcome(race), race, self.question.trials, self.question.patience)
            )
            self.progress.trial(trial, best, race.spent, self.question.trials)
            if time.monotonic() - self._published > PUBLISH_SECONDS:
                self._publish(self._outcome(race))

        try:
            race.run(
                trials=self.question.trials, finished=measured, clock=self.clock, patience=self.question.patience,
                reserved=lambda: self.schedule.reserved(self._outcome(race)),
            )  # fmt: skip
        except BaseException:
            if race.history:
                self._publish(self._outcome(race, state="stopped"))
            raise
        if self.clock.is_limited and not race.history and not race.failed:
            raise OutOfTime
        self._keep_time("trials", started)
        self._publish(self._outcome(race))
        started = time.monotonic()
        outcome = unmeasured_rival(self.schedule.decided(self._outcome(race, state="finished")), of=len(race.seeds))
        if not outcome.decision.is_complete:
            command = completion(
                self.question, self.folder, self.bank_folder, self.schedule.after(outcome), len(race.seeds)
            )
            outcome = replace(outcome, decision=replace(outcome.decision, completion=command))
        if self.latency and outcome.decision.winner is not None:
            if self.clock.has(self.schedule.timing):
                at_once = self.bench.deployed_at_once
                timed = time_deployed(outcome, self.bench.deployed, at_once, self.progress.step, self.progress.say)
                outcome = replace(outcome, timed=timed)
            else:
                self.progress.say("no time was left to time the deployed models: only predicted times are reported")
        self._keep_time("finalists", started)
        outcome = replace(
            outcome,
            circumstances=replace(outcome.circumstances, seconds=dict(self.seconds)),
            prices=self.solver.prices(self.losses, self.budget_bytes),
        )
        self._publish(outcome)
        return outcome

    def _race(self) -> Race:
        seeds = first_plans(self.solved, self.uniform, self.budget_bytes)
        log = TrialLog(self.folder / "study.db", with_latency=self.latency is not None)
        return Race(log, self.problem, self.question.sampler, seeds, self.schedule.measure_rung, self._predicted_times)

    def _predicted_times(self, plan: Plan) -> tuple[float | None, float] | None:
        inventory = self.bench.space.inventory
        return (
            self.latency.predict(inventory, deployed_plan(plan, inventory, self.bench.space.target))
            if self.latency
            else None
        )

    def _outcome(
        self, race: Race | None = None, *, state: str = "searching", provisional: Provisional | None = None
    ) -> Outcome:
        latency = self.latency.model_dump(exclude={"kernels"}) if self.latency else None
        return Outcome(
            state=state,
            question=Question.of(self.question, self.bench.space.inventory, self.budget_bytes),
            trials=replace(race.trials if race else Trials(), original_perplexity=self.original_perplexity),
            circumstances=self.bench.circumstances(latency=latency, seconds=dict(self.seconds)),
            provisional=provisional,
        )

    def _publish(self, outcome: Outcome) -> None:
        started = time.monotonic()
        self.outcome = outcome
        name_used(self.folder / USED, self.bench.bank.calibration, self.bench.bank.used)
        publish(
            outcome, self.reference, self.folder, self.progress.publish, partial(scored_records, self.bench, outcome)
        )
        self._published = time.monotonic()
        self.schedule.closing = max(self.schedule.closing, self._published - started)

    def _keep_time(self, name: str, started: float) -> None:
        self.seconds[name] = time.monotonic() - started
