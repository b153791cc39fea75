"""An open study folder: what every step of a search works with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from paredown.compressors.bank.contents import USED, name_used
from paredown.compressors.bank.folder import bank_in_use
from paredown.evaluators.latency import LatencyTable
from paredown.evaluators.timing import Wrap
from paredown.search.finalists.measurements import MEASUREMENTS, Measurements
from paredown.search.finalists.pace import Pace
from paredown.search.finalists.scored import scored_records
from paredown.search.outcome.inventory_file import write_inventory
from paredown.search.outcome.outcome import Outcome, Provisional, Trials
from paredown.search.outcome.plan_files import publish
from paredown.search.outcome.progress import Progress
from paredown.search.outcome.question import Question
from paredown.search.study.folder import locked, moved_aside, same_study, tidy
from paredown.search.study.limit import check_limit
from paredown.search.trials.clock import Clock
from paredown.search.workbench import inputs as study_inputs
from paredown.search.workbench.inputs import Inputs
from paredown.search.workbench.survey import reference_of
from paredown.search.workbench.workbench import Workbench
from paredown.space.plan_file import BaseModelReference
from paredown.space.study_file import StudyFile

Changed = Literal["refuse", "fresh", "adopt"]
"""Reaction if a folder's trials were measured with other weights, texts or libraries: ``refuse``; ``fresh`` moves the
folder aside and starts over; ``adopt`` resumes with the trials as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An open study folder, locked for this process.

    Attributes:
        study_file: The study.
        folder: The study folder.
        bank_folder: Folder of compressed sites.
        bench: Model, texts and bank.
        reference: The original, as plan files name it.
        question: What the study asks about this model.
        stored: The finalists' measurements that are on disk.
        pace: Pace of measurements in this run.
        clock: Time limit of the run.
        progress: Receives the progress.
        wrap: Gives the models that are timed to the target's engine.
        seconds: Time spent in each finished step [s]; `timed` adds to it.
    """

    study_file: StudyFile
    folder: Path
    bank_folder: Path
    bench: Workbench
    reference: BaseModelReference
    question: Question
    stored: Measurements
    pace: Pace
    clock: Clock
    progress: Progress
    wrap: Wrap
    seconds: dict[str, float]

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the time of the block to ``seconds`` under the step's name, unless it raises."""
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started

    def step(self, name: str, done: int, of: int) -> None:
        """Reports a step before the trials.

        Raises:
            OutOfTime: At the limit.
        """
        self.progress.step(name, done, of)
        self.clock.check()

    def outcome(
        self,
        trials: Trials,
        latency: LatencyTable | None = None,
        *,
        state: str = "searching",
        provisional: Provisional | None = None,
    ) -> Outcome:
        """The outcome with these trials, before the winner is chosen."""
        known = latency.model_dump(exclude={"kernels"}) if latency else None
        return Outcome(
            state=state,
            question=self.question,
            trials=trials,
            circumstances=self.bench.circumstances(latency=known, seconds=dict(self.seconds)),
            provisional=provisional,
        )

    def name_records(self) -> None:
        """Names the bank's records in use, so that cleaning the bank spares them."""
        name_used(self.folder / USED, self.bench.bank.calibration, self.bench.bank.used)

    def publish(self, outcome: Outcome) -> None:
        """Writes an outcome to the study folder: plans, reports, ``front.json``."""
        started = time.monotonic()
        self.name_records()
        records_of = partial(scored_records, self.bench, outcome)
        publish(outcome, self.reference, self.folder, self.progress.publish, records_of)
        self.pace.published(time.monotonic() - started)


@contextmanager
def opened(
    study_file: StudyFile,
    folder: Path,
    progress: Progress,
    wrap: Wrap,
    clock: Clock,
    *,
    bank: Path | None = None,
    workers: int | None = None,
    changed: Changed = "refuse",
) -> Iterator[Session]:
    """Locks and opens a study folder; the arguments are those of `run_study`.

    Raises:
        StudyError: If the folder holds another study, is in use, or was measured with other inputs.
    """
    bank_folder = bank or folder / "bank"
    if words := check_limit(study_file, clock, folder):
        progress.say(words)
    with ExitStack() as locks:

        def claim() -> None:
            locks.enter_context(locked(folder))
            same_study(folder, study_file)
            tidy(folder)
            locks.enter_context(bank_in_use(bank_folder))

        claim()
        started = time.monotonic()
        progress.step("model and texts", 0, None)
        check = partial(_check_inputs, folder, changed, claim, progress.say)
        bench = Workbench.open(study_file, bank_folder, workers, check, progress.say)
        inventory, texts = bench.space.inventory, bench.texts
        metric = {} if study_file.metric == "auto" else {"metric": study_file.metric}
        write_inventory(inventory, folder)
        yield Session(
            study_file=study_file,
            folder=folder,
            bank_folder=bank_folder,
            bench=bench,
            reference=reference_of(study_file, bench.banks.checkpoint, inventory),
            question=Question.of(study_file, inventory, inventory.budget_bytes(study_file.budget)),
            stored=Measurements(
                folder / MEASUREMENTS,
                bench.fingerprints | metric,
                lambda draw: texts.calibration(draw).sha256(),
                progress.say,
            ),
            pace=Pace({name: int(part.mask.sum()) for name, part in texts.sequences.items()}),
            clock=clock,
            progress=progress,
            wrap=wrap,
            seconds={"model and texts": time.monotonic() - started},
        )


def _check_inputs(
    folder: Path, changed: Changed, claim: Callable[[], None], say: Callable[[str], None], found: Inputs
) -> None:
    """Checks that a folder's trials were measured with the inputs ``found``, and writes these there.

    ``claim`` locks the folder again after the previous study was moved aside.

    Raises:
        StudyError: If they were not, and ``changed`` is ``refuse``.
    """
    differences = study_inputs.changes(folder, found)
    if differences and changed == "refuse":
        raise study_inputs.refuse(folder, differences)
    if differences and changed == "fresh":
        aside = moved_aside(folder)
        claim()
        say(f"the previous study was moved to {aside}")
        differences = []
    study_inputs.keep(folder, found, differences)
