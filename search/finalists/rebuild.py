"""Plans rebuilt for the final measurements: compressed in order, and on other calibration draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from paredown.compressors.bank.bank import Bank
from paredown.compressors.model.calibrated_banks import InputsOn, last_inputs
from paredown.compressors.model.sequential import holds_all, ordered_bank
from paredown.evaluators.quality import Quality
from paredown.search.workbench.workbench import Workbench
from paredown.space.plan import Plan


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
        inputs_on: Returns the original's inputs on some texts.
    """

    def __init__(self, bench: Workbench, inputs_on: InputsOn) -> None:
        self.bench, self.inputs_on = bench, inputs_on
        self._bank: tuple[int, Bank] | None = None

    def measure(self, plan: Plan, name: str, version: Version) -> Quality:
        """Quality of a version of a plan on a set.

        Raises:
            EvaluationError: If a prediction is not finite.
        """
        return self.bench.evaluator.measure(plan, name, self.bank(plan, version))

    def holds(self, plan: Plan, version: Version) -> bool:
        """Whether the bank already holds the plan compressed in order."""
        return holds_all(ordered_bank(self._calibrated(version.draw), plan), plan, self.bench.space.inventory)

    def bank(self, plan: Plan, version: Version) -> Bank:
        """Bank that holds a version of a plan; compresses what is missing."""
        bank = self._calibrated(version.draw)
        if not version.in_order or not self.bench.is_calibrated(plan):
            return bank
        return self.bench.banks.in_order(plan, bank, self.bench.texts.calibration(version.draw), self.inputs_on)

    def _calibrated(self, draw: int) -> Bank:
        """Bank of a draw; only the last one used is kept."""
        if self._bank is None or self._bank[0] != draw:
            self._bank = None
            self._bank = draw, self.bench.banks.on(self.bench.texts.calibration(draw))
        return self._bank[1]


@contextmanager
def rebuilder(bench: Workbench) -> Iterator[Rebuilder]:
    """A rebuilder with a temporary folder beside the bank, removed at the end."""
    with last_inputs(bench.banks) as inputs_on:
        yield Rebuilder(bench, inputs_on)
