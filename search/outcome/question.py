"""The question of a study, resolved for its model."""

from __future__ import annotations

from dataclasses import dataclass

from paredown.evaluators.metrics import metric_for
from paredown.search.trial import Trial, is_within
from paredown.space.site import Inventory
from paredown.space.study_file import StudyFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a study asks: which plan of a model loses the least within the budgets.

    Attributes:
        model: Name of the original.
        architecture: Class of the original.
        target: Name of the target runtime.
        metric: Name of the metric that the loss of a trial is measured in.
        original_bytes: Tensor bytes of the original as stored.
        parameters: Number of parameters of the original.
        budget: The budget as the study file gives it.
        budget_bytes: Most tensor bytes that the budget allows.
        max_decode_ms: Most predicted time of a decoded token [ms]; None without a limit.
        patience: The study's ``patience``.
        seed: Seed of the study.
    """

    model: str
    architecture: str
    target: str
    metric: str
    original_bytes: int
    parameters: int
    budget: str
    budget_bytes: int
    max_decode_ms: float | None = None
    patience: str | int = "off"
    seed: int = 0

    @classmethod
    def of(cls, study_file: StudyFile, inventory: Inventory, budget_bytes: int) -> Question:
        """The question of a study file about a model."""
        return cls(
            model=study_file.model,
            architecture=inventory.architecture,
            target=study_file.target,
            metric=metric_for(study_file.metric, causal=inventory.causal),
            original_bytes=inventory.original_bytes,
            parameters=inventory.parameters,
            budget=study_file.budget.text,
            budget_bytes=budget_bytes,
            max_decode_ms=study_file.max_decode_ms,
            patience=study_file.patience,
            seed=study_file.seed,
        )

    def allows(self, trial: Trial) -> bool:
        """Whether a trial's plan is within all budgets."""
        return is_within(trial, self.budget_bytes, self.max_decode_ms)
