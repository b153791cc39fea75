"""From a study file to a plan: each step leaves on disk what the next run finds again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from pydantic import TypeAdapter

from paredown.compressors.bank_folder import bank_in_use
from paredown.compressors.holdings import USED
from paredown.compressors.statistics_folder import again_if_damaged
from paredown.evaluators.latency import REMEDY, LatencyTable, deployed_plan
from paredown.search import inputs as study_inputs
from paredown.search.finalists import Measure, decide, time_deployed
from paredown.search.inputs import Inputs
from paredown.search.lazy import data_free, is_lazy, narrowed
from paredown.search.limits import decode_limit
from paredown.search.measurements import MEASUREMENTS, Measurements
from paredown.search.outcome import Outcome
from paredown.search.plans import publish
from paredown.search.rebuild import rebuilder
from paredown.search.record import Record, best_within
from paredown.search.refusal import refuse_impossible
from paredown.search.samplers import Proposal, Question
from paredown.search.scored import scored_records
from paredown.search.seeds import seed_plans
from paredown.search.sensitivity import Sensitivity, stored_losses
from paredown.search.solver import Solver
from paredown.search.study import Race, TrialLog, locked
from paredown.search.study_folder import finished, keep_environment, moved_aside, same_study, tidy
from paredown.search.uniform import uniform_plans
from paredown.search.workbench import Workbench, environment, reference_of
from paredown.space.errors import StudyError
from paredown.space.files import write_atomically
from paredown.space.plan import Plan
from paredown.space.site import Inventory
from paredown.space.space import Space
from paredown.space.study_file import StudyFile

PUBLISH_SECONDS = 20.0
Changed = Literal["refuse", "fresh", "adopt"]


class Progress(Protocol):
    """Who is told how a search goes on."""

    def step(self, name: str, done: int, of: int | None) -> None:
        """A step was begun or went on; ``of`` is None while its length is not known."""

    def trial(self, record: Record, best: Record | None, spent: float, of: int | None, deadline: float | None) -> None:
        """A trial ended; ``spent`` of the trials asked for are done."""

    def say(self, text: str) -> None:
        """A sentence for the person."""

    def publish(self, outcome: Outcome, folder: Path) -> None:
        """The outcome changed: reports may be drawn again."""


class Session:
    """A search in a study folder.

    Args:
        question: The study.
        folder: Where everything is kept; a folder of the same study goes on.
        progress: Who is told.
        bank: Folder of compressed sites; in the study folder by default.
        workers: Processes that fill it, and threads of passes in order; one a core by default.
        changed: What is done where the folder's trials were measured with other weights, texts or libraries: ``refuse``; ``fresh`` moves
            the folder aside and begins again; ``adopt`` goes on with the trials as they are.
    """

    def __init__(
        self, question: StudyFile, folder: Path, progress: Progress, bank: Path | None = None, workers: int | None = None,
        changed: Changed = "refuse",
    ) -> None:  # fmt: skip
        self.question, self.folder, self.progress, self.workers = question, folder, progress, workers
        self.changed = changed
        self.bank_folder = bank or folder / "bank"
        self.seconds: dict[str, float] = {}

    def run(self) -> Outcome:
        """Searches until the study says stop, and chooses the winner.

        Raises:
            StudyError: If the folder holds another study or is in use.
            BudgetError: If nothing meets the budget; the smallest plan is in ``best/plan.yaml``.
        """
        deadline = self._deadline()
        return again_if_damaged(lambda: self._run(deadline), self.progress.say)

    def _run(self, deadline: float | None) -> Outcome:
        with ExitStack() as self._locks:
            self._locks.enter_context(locked(self.folder))
            same_study(self.folder, self.question)
            tidy(self.folder)
            self._locks.enter_context(bank_in_use(self.bank_folder))
            started = time.monotonic()
            self.progress.step("model and texts", 0, None)
            self.bench = Workbench(self.question, self.bank_folder, self.workers, self._check_inputs, self.progress.say)
            space, inventory = self.bench.space, self.bench.space.inventory
            self.reference = reference_of(self.question, self.bench.folder, inventory)
            write_atomically(self.folder / "inventory.json", TypeAdapter(Inventory).dump_json(inventory, indent=1))
            if before := finished(self.folder, self.question):
                self._publish(before)  # what a person or a full disk took away is there again
                return before
            keep_environment(self.folder, environment())
            self.solver = Solver(space)
            self.budget_bytes = self._budget(inventory)
            self._keep_time("model and texts", started)
            started = time.monotonic()
            self.uniform = uniform_plans(space, self.budget_bytes)
            if is_lazy(self.question, space):
                self._narrow()
            self._fill([plan.plan for plan in self.uniform])
            self._keep_time("bank", started)
            started = time.monotonic()
            self.losses = self._sensitivity()
            self._keep_time("sensitivity", started)
            started = time.monotonic()
            self.progress.step("latency", 0, None)
            self.latency = self._latency()
            if self.latency and self.question.max_decode_ms is not None:
                space = self.bench.space
                self.solver = Solver(space, limits=[decode_limit(space, self.latency, self.question.max_decode_ms)])
                self.solver.solve(self.losses, self.budget_bytes)  # or says which of the budgets cannot be met
            self._keep_time("latency", started)
            return self._search(deadline)

    def _check_inputs(self, found: Inputs) -> None:
        """Makes sure that the folder's trials were measured with these inputs, and writes them there.

        Raises:
            StudyError: If they were not, and nothing else was asked for.
        """
        changed = study_inputs.changes(self.folder, found)
        if changed and self.changed == "refuse":
            raise study_inputs.refuse(self.folder, changed)
        if changed and self.changed == "fresh":
            aside = moved_aside(self.folder)
            self._locks.enter_context(locked(self.folder))
            self._locks.enter_context(bank_in_use(self.bank_folder))
            same_study(self.folder, self.question)
            self.progress.say(f"the study of before is {aside}")
            changed = []
        study_inputs.keep(self.folder, found, changed)
        self.inputs = {**found.texts, "origin": found.origin.sha256()}

    def _budget(self, inventory: Inventory) -> int:
        asked = inventory.budget_bytes(self.question.budget)
        refuse_impossible(self.solver, asked, self.reference, self.folder / "best" / "plan.yaml")
        if asked >= inventory.original_bytes:
            self.progress.say(
                f"the budget of {asked:,} bytes is no less than the original's {inventory.original_bytes:,}: everything may be kept"
            )
        return asked

    def _sensitivity(self) -> Sensitivity:
        self.original_perplexity = self.bench.teacher("search").measure(self.bench.model).perplexity
        return self._losses(self.bench.space, "sensitivity.json")

    def _losses(self, space: Space, name: str) -> Sensitivity:
        inputs = [self.inputs[name] for name in ("calibration", "search", "origin")]
        return stored_losses(
            self.folder / name, self.question.sensitivity, inputs, space, self.bench.planned, self.bench.bank,
            self.bench.sequences["search"], lambda done, of: self.progress.step("sensitivity", done, of),
        )  # fmt: skip

    def _fill(self, beside: Sequence[Plan] = ()) -> None:
        self.bench.fill_bank(beside, lambda done, of: self.progress.step("bank", done, of))
        self.bench.name_records(self.folder / USED)

    def _narrow(self) -> None:
        """Leaves in the space only those calibrated choices where the front may pass, told by their data-free siblings."""
        offered = self.bench.space
        self.bench.space = free = data_free(offered)
        self._fill()
        losses = self._losses(free, "sensitivity-data-free.json")
        self.bench.space = narrowed(offered, free, losses, self.budget_bytes)
        self.solver = Solver(self.bench.space)
        before, now = (sum(map(len, space.options.values())) for space in (offered, self.bench.space))
        self.progress.say(f"lazy bank: {now:,} of {before:,} choices lie near the budget; the calibrated ones of the others are not made")

    def _latency(self) -> LatencyTable | None:
        if self.question.latency == "off":
            return None
        path = self.folder / "latency.json" if self.question.latency == "measure" else Path(self.question.latency)
        if self.question.latency != "measure" and not path.is_file():
            raise StudyError(f"no latency table {path}; leave it out to measure one, or say off")
        plans = [plan.plan for plan in self.uniform]
        table = self.bench.latency_table(path, plans)
        if lacking := table.lacking(self.bench.space, plans):
            self.progress.say(
                f"the latency table {path} lacks {len(lacking)} kernels of this study ({lacking[0]}): "
                f"plans that run them get no predicted time; {REMEDY}"
            )
        return table

    def _search(self, deadline: float | None) -> Outcome:
        started = time.monotonic()
        race = self._race()
        self.outcome = self._outcome(race, state="searching")
        self._published = 0.0

        def measured(record: Record) -> None:
            best = best_within(race.measured, self.budget_bytes, self.question.max_decode_ms)
            self.progress.trial(record, best, race.spent, self.question.trials, deadline)
            if time.monotonic() - self._published > PUBLISH_SECONDS:
                self._publish(self._outcome(race, state="searching"))

        try:
            race.run(trials=self.question.trials, deadline=deadline, finished=measured, patience=self.question.patience)
        except BaseException:
            if race.history:
                self._publish(self._outcome(race, state="stopped"))
            raise
        self._keep_time("trials", started)
        self._publish(self._outcome(race, state="searching"))
        started = time.monotonic()
        with rebuilder(self.bench) as rebuild:
            measure = self._measurements(rebuild.measure).measure
            outcome = decide(self._outcome(race, state="finished"), measure, self.bench.is_calibrated, self.progress.step)
        if self.latency and outcome.winner is not None:
            timed = time_deployed(outcome, self.bench.deployed, self.bench.deployed_at_once, self.progress.step, self.progress.say)
            outcome = replace(outcome, timed=timed)
        self._keep_time("finalists", started)
        outcome = replace(outcome, seconds=dict(self.seconds), prices=self.solver.prices(self.losses, self.budget_bytes))
        self._publish(outcome)
        return outcome

    def _measurements(self, measure: Measure) -> Measurements:
        """The finalists' measurements, which a search that was killed among them finds again."""

        def texts(draw: int) -> str:
            return self.bench.calibration(draw).sha256()

        return Measurements(self.folder / MEASUREMENTS, self.inputs, texts, measure)

    def _race(self) -> Race:
        """The trials: the solver's plan for the budget, uniform plans, the solver's others, then what the sampler proposes."""
        asked = Question.of(self.question, self.solver, self.losses, len(self.bench.sequences["search"]))
        baselines = [("uniform", Proposal(plan=plan.plan, label=plan.label)) for plan in self.uniform]
        solved = [("solver", proposal) for proposal in seed_plans(asked, [plan.size_bytes for plan in self.uniform])]
        seeds = [*solved[:1], *baselines, *solved[1:]]
        log = TrialLog(self.folder / "study.db", with_latency=self.latency is not None)
        return Race(log, asked, self.question.sampler, seeds, self.bench.measure_rung, self._predicted_times)

    def _predicted_times(self, plan: Plan) -> tuple[float | None, float] | None:
        inventory = self.bench.space.inventory
        return self.latency.predict(inventory, deployed_plan(plan, inventory, self.bench.space.target)) if self.latency else None

    def _deadline(self) -> float | None:
        ends = []
        if self.question.timeout is not None:
            ends.append(time.monotonic() + self.question.timeout)
        if self.question.until is not None:
            ends.append(time.monotonic() + seconds_until(self.question.until, datetime.now()))
        return min(ends, default=None)

    def _outcome(self, race: Race, *, state: str) -> Outcome:
        return self.bench.outcome(
            state=state,
            budget_bytes=self.budget_bytes,
            original_perplexity=self.original_perplexity,
            records=tuple(race.measured),
            stopped_early=len(race.history) - len(race.measured),
            failed=len(race.failed),
            spent=race.spent,
            patience=self.question.patience,
            ended=race.ended,
            latency=self.latency.model_dump(exclude={"kernels"}) if self.latency else None,
            seconds=dict(self.seconds),
            max_decode_ms=self.question.max_decode_ms,
        )

    def _publish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.bench.name_records(self.folder / USED)
        publish(outcome, self.reference, self.folder, self.progress.publish, partial(scored_records, self.bench, outcome))
        self._published = time.monotonic()

    def _keep_time(self, name: str, started: float) -> None:
        self.seconds[name] = time.monotonic() - started


def seconds_until(clock: str, now: datetime) -> float:
    """Seconds from now until the next time that the clock shows ``HH:MM``."""
    hours, minutes = map(int, clock.split(":"))
    then = now.replace(hour=hours, minute=minutes, second=0, microsecond=0)
    if then <= now:
        then += timedelta(days=1)
    return (then - now).total_seconds()
