"""Workbench: the model, texts and bank of a study, opened together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from paredown.compressors.bank.bank import Bank
from paredown.compressors.bank.fill import Pair, Progress, cores
from paredown.compressors.model.calibrated_banks import CalibratedBanks
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.model.sequential import is_calibrated
from paredown.compressors.original.checkpoint import config_of
from paredown.compressors.original.memory_limit import memory_bytes
from paredown.compressors.original.origin import Origin, cpu_name
from paredown.evaluators.latency import LatencyTable, deployed, deployed_plan, measure_table
from paredown.evaluators.timing import Running, Wrap
from paredown.search.outcome.outcome import Circumstances
from paredown.search.workbench.deployed import check_deployed, deployed_bytes, deployed_dtype
from paredown.search.workbench.environment import environment
from paredown.search.workbench.evaluator import Evaluator
from paredown.search.workbench.inputs import Inputs
from paredown.search.workbench.survey import survey
from paredown.search.workbench.texts import Texts
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import StudyFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """The parts of one study that plans are compressed and measured with.

    Attributes:
        study_file: The study.
        config: The model's configuration.
        space: The study's space on the model.
        texts: Its tokenized texts.
        banks: The original with its bank, and banks on other calibration draws.
        evaluator: Measures plans.
        memory_bytes: Memory that the weights may take [bytes].
    """

    study_file: StudyFile
    config: Any
    space: Space
    texts: Texts
    banks: CalibratedBanks
    evaluator: Evaluator
    memory_bytes: int

    @classmethod
    def open(
        cls,
        study_file: StudyFile,
        bank_folder: Path,
        workers: int | None = None,
        check: Callable[[Inputs], None] = lambda inputs: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> Workbench:
        """Opens a study, and collects the statistics of its calibration texts if they are missing.

        Args:
            study_file: The study.
            bank_folder: Folder of compressed sites.
            workers: Processes that fill the bank, and threads of passes in order; one per core by default.
            check: Called with everything that the numbers depend on before any is computed; may raise.
            say: Called with a line for each damaged file that is rebuilt.
        """
        folder, space = survey(study_file)
        config = config_of(folder)
        texts = Texts.of(study_file, folder)
        origin = Origin.of(folder, config, bank_folder)
        check(Inputs(texts=texts.sha256, origin=origin))
        memory = memory_bytes(study_file.memory)
        needs = frozenset(need for options in space.options.values() for choice in options for need in choice.needs)
        banks = CalibratedBanks.open(
            folder, config, space.inventory, texts.calibration(), folder=bank_folder, origin=origin, needs=needs,
            memory_bytes=memory, workers=workers or cores(), say=say,
        )  # fmt: skip
        banks.on(texts.calibration())
        return cls(
            study_file=study_file,
            config=config,
            space=space,
            texts=texts,
            banks=banks,
            evaluator=Evaluator(banks.planned, texts.sequences, study_file.metric),
            memory_bytes=memory,
        )

    @property
    def planned(self) -> PlannedModel:
        """The model that takes plans."""
        return self.banks.planned

    @property
    def bank(self) -> Bank:
        """The bank of the study's own calibration texts."""
        return self.banks.planned.bank

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of everything that measurements depend on: each set of texts, and the ``origin``."""
        return {**self.texts.sha256, "origin": self.banks.origin.sha256()}

    def is_calibrated(self, plan: Plan) -> bool:
        """Whether the plan's stored tensors depend on the calibration texts."""
        return is_calibrated(plan, self.space.inventory)

    def fill_bank(self, beside: Sequence[Plan] = (), progress: Progress = lambda done, of: None) -> None:
        """Compresses every (site, choice) of the space and of the plans ``beside`` that the bank lacks.

        Raises:
            OutputError: If a record cannot be written.
            WorkerError: If a process dies; finished records stay.
        """
        inventory = self.space.inventory
        pairs: list[Pair] = [(site, choice) for site in inventory.sites for choice in self.space.options[site.name]]
        self.banks.fill([*pairs, *(decided for plan in beside for decided in plan.decided(inventory))], progress)

    def latency_table(
        self, path: Path, wrap: Wrap, beside: Sequence[Plan] = (), check: Callable[[], None] = lambda: None
    ) -> LatencyTable:
        """Latency table from a file, or measured now if the file is missing.

        Args:
            path: The file.
            wrap: Gives the models that are timed to the target's engine.
            beside: Plans to cover in addition to the space.
            check: Called before each timing.
        """
        if path.is_file():
            return LatencyTable.read(path)
        check_deployed(deployed_bytes(self.config, self.space), self.memory_bytes)
        build, dtype = partial(self.deployed, wrap), deployed_dtype(self.config, self.space)
        table = measure_table(self.space, build, dtype, cpu_name(), beside, check)
        table.write(path)
        return table

    def deployed(self, wrap: Wrap, plan: Plan) -> Running:
        """The model that the target runs under a plan, given to its engine by ``wrap``."""
        inventory = self.space.inventory
        plan = deployed_plan(plan, inventory, self.space.target)
        model = deployed(self.bank, self.config, inventory, plan, deployed_dtype(self.config, self.space))
        return wrap(model, causal=inventory.causal)

    @property
    def deployed_at_once(self) -> int:
        """Number of deployed models that fit in memory, each counted as large as the original."""
        return self.memory_bytes // deployed_bytes(self.config, self.space)

    def circumstances(self, **known: Any) -> Circumstances:
        """Texts, versions and machine of the study, and the given attributes."""
        return Circumstances(
            calibration=self.texts.calibration_texts,
            data_sha256=dict(self.texts.sha256),
            environment=environment(),
            **known,
        )
