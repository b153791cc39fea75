"""Plans rebuilt for the final measurements: compressed in order, and on other calibration draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paredown.compressors.bank.bank import Bank
from paredown.compressors.model.original_inputs import Inputs, original_inputs
from paredown.compressors.model.sequential import holds_all, in_order, is_calibrated, ordered_bank
from paredown.evaluators.quality import Quality
from paredown.evaluators.sequences import Sequences
from paredown.search.workbench.workbench import Workbench
from paredown.space.plan import Plan
from paredown.space.system.temporary import temporary_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """How a plan is compressed.

    Attributes:
        in_order: Whether each matrix is calibrated on the inputs that the compressed matrices before it give.
        draw: Index of the calibration draw; 0 is the study's own.
    """

    in_order: bool = False
    draw: int = 0


class Rebuilder:
    """Measures a workbench's plans in other versions.

    Args:
        bench: The workbench; its own bank is draw 0.
        work: Folder for the original's inputs, which are large and needed only for a while.
    """

    def __init__(self, bench: Workbench, work: Path) -> None:
        self.bench = bench
        self.work = work
        self._bank: tuple[int, Bank] | None = None
        self._inputs: tuple[int, Inputs] | None = None

    def measure(self, plan: Plan, name: str, version: Version) -> Quality:
        """Quality of a version of a plan on a set.

        Raises:
            EvaluationError: If a prediction is not finite.
        """
        return self.bench.measure(plan, name, self.bank(plan, version))

    def holds(self, plan: Plan, version: Version) -> bool:
        """Whether the bank already holds the plan compressed in order."""
        return holds_all(ordered_bank(self._calibrated(version.draw), plan), plan, self.bench.space.inventory)

    def bank(self, plan: Plan, version: Version) -> Bank:
        """Bank that holds a version of a plan; compresses what is missing."""
        bank = self._calibrated(version.draw)
        if not version.in_order or not is_calibrated(plan, self.bench.space.inventory):
            return bank
        ordered = ordered_bank(bank, plan)
        if holds_all(ordered, plan, self.bench.space.inventory):
            return ordered
        part = self.bench.calibration(version.draw)
        inputs = self._original_inputs(version.draw, part)
        return in_order(self.bench.planned, plan, bank, part.tokens, part.mask, inputs, self.bench.workers)

    def _calibrated(self, draw: int) -> Bank:
        """Bank of a draw; only the last one used is kept."""
        if self._bank is None or self._bank[0] != draw:
            self._bank = None
            self._bank = draw, self.bench.calibrated(draw)
        return self._bank[1]

    def _original_inputs(self, draw: int, part: Sequences) -> Inputs:
        """The original's inputs on a draw; only the last ones used are kept."""
        if self._inputs is None or self._inputs[0] != draw:
            for old in self.work.iterdir():
                old.unlink()
            self._inputs = (
                draw,
                original_inputs(self.bench.planned, part.tokens, part.mask, self.work, self.bench.workers),
            )
        return self._inputs[1]


@contextmanager
def rebuilder(bench: Workbench) -> Iterator[Rebuilder]:
    """A rebuilder with a temporary folder beside the bank, removed at the end."""
    bench.bank.folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder(bench.bank.folder) as work:
        yield Rebuilder(bench, work)
