"""Workbench: the model, texts and bank of a study, ready to measure plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from paredown.compressors.bank.bank import Bank, decoded_bytes
from paredown.compressors.bank.contents import UsedFile, read_used
from paredown.compressors.bank.fill import Pair, cores, fill
from paredown.compressors.calibration.collect import calibration_key
from paredown.compressors.calibration.importance import statistics_for
from paredown.compressors.calibration.statistics_folder import StatisticsFolder
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.model.sequential import is_calibrated
from paredown.compressors.original.checkpoint import config_of
from paredown.compressors.original.lazy_weights import open_original
from paredown.compressors.original.memory_limit import memory_bytes
from paredown.compressors.original.origin import Origin, cpu_name
from paredown.evaluators.latency import LatencyTable, deployed, deployed_plan, measure_table
from paredown.evaluators.quality import Quality, Teacher
from paredown.evaluators.sequences import Sequences
from paredown.search.outcome.outcome import Circumstances
from paredown.search.workbench.deployed import check_deployed, deployed_bytes, deployed_dtype
from paredown.search.workbench.environment import environment
from paredown.search.workbench.inputs import Inputs
from paredown.search.workbench.survey import survey
from paredown.search.workbench.texts import Texts
from paredown.space.errors import StudyError
from paredown.space.plan import Plan
from paredown.space.study_file import StudyFile
from paredown.space.system.files import write_json


class Workbench:
    """Measures plans of one study.

    Args:
        question: The study.
        bank_folder: Folder of compressed sites.
        workers: Processes that fill the bank, and threads of passes in order; one per core by default.
        check: Called with everything that the numbers depend on before any is computed; may raise.
        say: Called with a line for each damaged file that is rebuilt.
    """

    def __init__(
        self,
        question: StudyFile,
        bank_folder: Path,
        workers: int | None = None,
        check: Callable[[Inputs], None] = lambda inputs: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.question, self.workers = question, workers or cores()
        self.folder, self.space = survey(question)
        self.config = config_of(self.folder)
        self.texts = Texts.of(question, self.folder)
        self.sequences = self.texts.sequences
        self.origin = Origin.of(self.folder, self.config, bank_folder)
        check(Inputs(texts=self.texts_sha256, origin=self.origin))
        self.memory_bytes = memory_bytes(question.memory)
        self.model, parameters = open_original(self.folder, self.config, self.memory_bytes)
        key, cache = self._calibration_key(0), decoded_bytes(parameters)
        self.bank = Bank(bank_folder, parameters, None, key, cache_bytes=cache, checkpoint=self.folder, say=say)
        self.planned = PlannedModel(self.model, self.space.inventory, self.bank)
        self.bank.statistics = self.statistics = self._collect(0)
        self._teachers: dict[str, Teacher] = {}

    def calibration(self, draw: int = 0) -> Sequences:
        """Calibration sequences of a draw; draw 0 is the study's own."""
        return self.texts.draw(draw=draw) if draw else self.sequences["calibration"]

    def calibrated(self, draw: int) -> Bank:
        """Bank of another calibration draw; collects its statistics if they are missing."""
        return self.bank.calibrated(self._collect(draw), self._calibration_key(draw)) if draw else self.bank

    def is_calibrated(self, plan: Plan) -> bool:
        """Whether the plan's stored tensors depend on the calibration texts."""
        return is_calibrated(plan, self.space.inventory)

    @property
    def calibration_texts(self) -> dict[str, Any]:
        """The calibration texts in the form of a plan file."""
        return {
            "data": self.question.data,
            "tokens": self.question.tokens.calibration,
            "sequence_length": self.texts.length,
            "seed": self.question.seed,
            "sha256": self.calibration().sha256(),
        }

    def _calibration_key(self, draw: int) -> str:
        part = self.calibration(draw)
        return calibration_key(part.tokens, part.mask, self.origin.sha256())

    def _collect(self, draw: int) -> StatisticsFolder:
        part, inventory = self.calibration(draw), self.space.inventory
        folder = self.bank.folder / "statistics" / self._calibration_key(draw)
        self.planned.swap(Plan())
        needs = frozenset(
            need for options in self.space.options.values() for choice in options for need in choice.needs
        )
        return statistics_for(self.model, inventory, part.tokens, part.mask, folder, needs)

    def teacher(self, name: str) -> Teacher:
        """The original's predictions on a set, computed on first use."""
        if name not in self._teachers:
            plan = self.planned.plan
            self.planned.swap(Plan())
            self._teachers[name] = Teacher(self.model, self.sequences[name], causal=self.space.inventory.causal)
            self.planned.swap(plan)
        return self._teachers[name]

    def measure_rung(self, plan: Plan, sequences: int | None) -> Quality:
        """Quality of a plan on the first ``sequences`` sequences of the search set; None for all of them.

        Raises:
            EvaluationError: If a prediction is not finite.
        """
        teacher = self.teacher("search")
        self.planned.swap(plan)
        return teacher.measure(self.model, sequences)

    def measure(self, plan: Plan, name: str = "search", bank: Bank | None = None) -> Quality:
        """Quality of a plan on a set.

        Args:
            plan: The plan.
            name: Name of the set.
            bank: Bank whose records are measured; the workbench's own by default.

        Raises:
            EvaluationError: If a prediction is not finite.
        """
        teacher = self.teacher(name)
        self.planned.swap(plan, bank)
        return teacher.measure(self.model)

    def latency_table(
        self, path: Path, beside: Sequence[Plan] = (), check: Callable[[], None] = lambda: None
    ) -> LatencyTable:
        """Latency table from a file, or measured now if the file is missing.

        Args:
            path: The file.
            beside: Plans to cover in addition to the space.
            check: Called before each timing.
        """
        if path.is_file():
            return LatencyTable.read(path)
        check_deployed(deployed_bytes(self.config, self.space), self.memory_bytes)
        table = measure_table(
            self.space, self.deployed, deployed_dtype(self.config, self.space), cpu_name(), beside, check
        )
        table.write(path)
        return table

    def deployed(self, plan: Plan) -> PreTrainedModel:
        """The model that the target runs under a plan."""
        inventory = self.space.inventory
        plan = deployed_plan(plan, inventory, self.space.target)
        return deployed(self.bank, self.config, inventory, plan, deployed_dtype(self.config, self.space))

    @property
    def deployed_at_once(self) -> int:
        """Number of deployed models that fit in memory, each counted as large as the original."""
        return self.memory_bytes // deployed_bytes(self.config, self.space)

    def fill_bank(
        self, beside: Sequence[Plan] = (), progress: Callable[[int, int], None] = lambda done, of: None
    ) -> None:
        """Compresses every (site, choice) of the space and of the plans ``beside`` that the bank lacks.

        Raises:
            OutputError: If a record cannot be written.
            WorkerError: If a process dies; finished records stay.
        """
        inventory = self.space.inventory
        pairs: list[Pair] = [(site, choice) for site in inventory.sites for choice in self.space.options[site.name]]
        self.fill([*pairs, *(decided for plan in beside for decided in plan.decided(inventory))], progress)

    def fill(self, pairs: Sequence[Pair], progress: Callable[[int, int], None] = lambda done, of: None) -> None:
        """Compresses those (site, choice) pairs that the bank lacks; raises as `fill_bank` does."""
        statistics = getattr(self.statistics, "folder", None)
        fill(self.bank, pairs, checkpoint=self.folder, statistics=statistics, workers=self.workers, progress=progress)

    @cached_property
    def texts_sha256(self) -> dict[str, str]:
        """Fingerprints of the sequences, by set."""
        return {name: part.sha256() for name, part in self.sequences.items()}

    def circumstances(self, **known: Any) -> Circumstances:
        """Texts, versions and machine of the study, and the given attributes."""
        return Circumstances(
            calibration=self.calibration_texts,
            data_sha256=dict(self.texts_sha256),
            environment=environment(),
            **known,
        )

    def name_records(self, path: Path) -> None:
        """Adds the records in use to a file, so that cleaning the bank spares them."""
        try:
            before = read_used(path).records
        except StudyError:  # missing or damaged: the search asks again for every record that its study needs
            before = []
        used = UsedFile(statistics=self.bank.calibration, records=sorted({*before, *self.bank.used}))
        write_json(path, used.model_dump())
