"""An original opened with its bank, which is calibrated on texts: each matrix independently, or a plan in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from paredown.compressors.bank.bank import Bank, decoded_bytes
from paredown.compressors.bank.fill import Pair, Progress, fill
from paredown.compressors.calibration.collect import calibration_key
from paredown.compressors.calibration.importance import statistics_for
from paredown.compressors.model.original_inputs import Inputs, original_inputs
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.model.sequential import holds_all, in_order, ordered_bank
from paredown.compressors.original.lazy_weights import open_original
from paredown.compressors.original.origin import Origin
from paredown.compressors.tensor_files.record_names import STATISTICS
from paredown.space.plan import Plan
from paredown.space.site import Inventory
from paredown.space.statistics import Statistic
from paredown.space.system.temporary import temporary_folder


class CalibrationTokens(Protocol):
    """Calibration texts as tokens."""

    @property
    def tokens(self) -> Tensor:
        """Shape ``(sequences, length)``, padded on the right."""

    @property
    def mask(self) -> Tensor:
        """1 for a token, 0 for padding; same shape."""


InputsOn = Callable[[CalibrationTokens], Inputs]
"""Inputs of the original's matrices on some texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedBanks:
    """An original with its bank, and banks over the same folder that are calibrated on other texts.

    Attributes:
        checkpoint: Folder of the original.
        origin: What records depend on besides choices and texts.
        planned: The model that takes plans; its bank belongs to the texts that it was opened with.
        needs: Statistics that the choices need.
        workers: Processes that fill the bank, and threads of passes in order.
    """

    checkpoint: Path
    origin: Origin
    planned: PlannedModel
    needs: frozenset[Statistic]
    workers: int

    @classmethod
    def open(
        cls, checkpoint: Path, config: Any, inventory: Inventory, texts: CalibrationTokens, *, folder: Path,
        origin: Origin, needs: frozenset[Statistic], memory_bytes: int, workers: int, say: Callable[[str], None],
    ) -> CalibratedBanks:  # fmt: skip
        """Opens an original with its bank, which belongs to ``texts``; statistics are not collected yet.

        ``memory_bytes`` bounds the weights in memory [bytes]; ``say`` receives a line for each damaged record that is
        recomputed.

        Raises:
            CheckpointError: If the checkpoint is incomplete or damaged, or does not fit and cannot be streamed.
        """
        model, parameters = open_original(checkpoint, config, memory_bytes)
        key, cache = calibration_key(texts.tokens, texts.mask, origin.sha256()), decoded_bytes(parameters)
        bank = Bank(folder, parameters, None, key, cache_bytes=cache, checkpoint=checkpoint, say=say)
        planned = PlannedModel(model, inventory, bank)
        return cls(checkpoint=checkpoint, origin=origin, planned=planned, needs=needs, workers=workers)

    def on(self, texts: CalibrationTokens) -> Bank:
        """The bank that is calibrated on these texts; collects missing statistics.

        Raises:
            StudyError: If importance is needed and the model is an encoder or not entirely in memory.
        """
        own, key = self.planned.bank, calibration_key(texts.tokens, texts.mask, self.origin.sha256())
        bank = own if key == own.calibration else own.calibrated(None, key)
        self._collect(bank, texts)
        return bank

    def in_order(self, plan: Plan, bank: Bank, texts: CalibrationTokens, inputs_on: InputsOn) -> Bank:
        """The bank that holds a plan compressed in order; compresses what is missing.

        Args:
            plan: The plan.
            bank: Bank of the texts, from `on` or as it was opened.
            texts: Calibration texts.
            inputs_on: Returns the original's inputs, as `last_inputs` does.
        """
        ordered = ordered_bank(bank, plan)
        if holds_all(ordered, plan, self.planned.inventory):
            return ordered
        self._collect(bank, texts)
        return in_order(self.planned, plan, bank, texts.tokens, texts.mask, inputs_on(texts), self.workers)

    def fill(self, pairs: Sequence[Pair], progress: Progress = lambda done, of: None) -> None:
        """Compresses those (site, choice) pairs that the bank lacks.

        Raises:
            OutputError: If a record cannot be written.
            WorkerError: If a process dies; finished records stay.
        """
        bank = self.planned.bank
        statistics = getattr(bank.statistics, "folder", None)
        fill(bank, pairs, checkpoint=self.checkpoint, statistics=statistics, workers=self.workers, progress=progress)

    def _collect(self, bank: Bank, texts: CalibrationTokens) -> None:
        if bank.statistics:
            return
        planned, folder = self.planned, bank.folder / STATISTICS / bank.calibration
        planned.swap(Plan())
        bank.statistics = statistics_for(planned.model, planned.inventory, texts.tokens, texts.mask, folder, self.needs)


@contextmanager
def last_inputs(banks: CalibratedBanks) -> Iterator[InputsOn]:
    """Yields a function that returns the original's inputs on some texts; those of the last texts are kept.

    They lie in a temporary folder beside the bank, since they are large and needed only for a while.
    """
    folder, last = banks.planned.bank.folder, dict[str, Inputs]()
    with ExitStack() as stack:

        def inputs_on(texts: CalibrationTokens) -> Inputs:
            key = calibration_key(texts.tokens, texts.mask, "")
            if key not in last:
                last.clear()
                stack.close()  # removes the previous folder
                folder.mkdir(parents=True, exist_ok=True)
                work = stack.enter_context(temporary_folder(folder))
                last[key] = original_inputs(banks.planned, texts.tokens, texts.mask, work, banks.workers)
            return last[key]

        yield inputs_on
