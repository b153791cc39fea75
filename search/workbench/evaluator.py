"""Quality of a study's plans on its sets."""

from __future__ import annotations

from collections.abc import Mapping

from paredown.compressors.bank.bank import Bank
from paredown.compressors.model.planned_model import PlannedModel
from paredown.evaluators.quality import Quality, Teacher
from paredown.evaluators.sequences import Sequences
from paredown.space.plan import Plan


class Evaluator:
    """Measures plans against the original, whose predictions on a set are computed on first use.

    Args:
        planned: The model that takes plans.
        sequences: The sets, by name.
        metric: Name of the metric; ``auto`` for the usual one.
    """

    def __init__(self, planned: PlannedModel, sequences: Mapping[str, Sequences], metric: str = "auto") -> None:
        self.planned, self.sequences, self.metric = planned, sequences, metric
        self._teachers: dict[str, Teacher] = {}

    def teacher(self, name: str) -> Teacher:
        """The original's predictions on a set."""
        if name not in self._teachers:
            planned = self.planned
            plan = planned.plan
            planned.swap(Plan())
            self._teachers[name] = Teacher(
                planned.model, self.sequences[name], causal=planned.inventory.causal, metric=self.metric
            )
            planned.swap(plan)
        return self._teachers[name]

    def measure(self, plan: Plan, name: str = "search", bank: Bank | None = None) -> Quality:
        """Quality of a plan on a set.

        Args:
            plan: The plan.
            name: Name of the set.
            bank: Bank whose records are measured; the model's own by default.

        Raises:
            EvaluationError: If a prediction is not finite.
        """
        teacher = self.teacher(name)
        self.planned.swap(plan, bank)
        return teacher.measure(self.planned.model)

    def measure_rung(self, plan: Plan, sequences: int | None) -> Quality:
        """Quality of a plan on the first ``sequences`` sequences of the search set; None for all of them.

        Raises:
            EvaluationError: If a prediction is not finite.
        """
        teacher = self.teacher("search")
        self.planned.swap(plan)
        return teacher.measure(self.planned.model, sequences)
