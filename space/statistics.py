"""Calibration statistics of a matrix, which calibrated methods need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from paredown.space.errors import EvaluationError, PlanError

if TYPE_CHECKING:
    from torch import Tensor

Statistic = Literal["second_moment", "mean_absolute", "importance"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statistics:
    """Calibration statistics of one matrix ``(out_features, in_features)``, float32; None if not collected.

    Attributes:
        second_moment: Mean of x x' over the inputs x of the calibration tokens; ``(in_features, in_features)``.
        mean_absolute: Mean of abs(x) over the same inputs; ``(in_features,)``.
        importance: Weight of each entry's squared error in the loss, the diagonal of the Fisher information;
            ``(out_features, in_features)``.
        derived: Results that methods computed from these statistics and reuse for other choices (factorisations), by
            the methods' own names.
    """

    second_moment: Tensor | None = None
    mean_absolute: Tensor | None = None
    importance: Tensor | None = None
    derived: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: Statistic) -> Tensor:
        """The statistic of this name.

        Raises:
            PlanError: If it was not collected.
            EvaluationError: If a value is not finite, or is negative where it cannot be.
        """
        found: Tensor | None = getattr(self, name)
        if found is None:
            raise PlanError(
                f"{name} of the inputs was not collected, and the method needs it; give calibration texts (--data)"
            )
        if f"sound {name}" not in self.derived:
            squares = found.diagonal() if name == "second_moment" else found
            if not (found.isfinite().all() and (squares >= 0).all()):
                raise EvaluationError(
                    f"{name} of a matrix's inputs has negative or non-finite values: the statistics are damaged; "
                    "remove the bank's folder 'statistics', then run the same command again"
                )
            self.derived[f"sound {name}"] = True
        return found

    def only(self, names: frozenset[Statistic]) -> Statistics:
        """The named statistics and no others, so that the result of a choice depends on nothing else."""
        return Statistics(**{name: getattr(self, name) for name in names}, derived=self.derived)

    def of_rows(self, rows: Tensor) -> Statistics:
        """Statistics of the matrix with only these rows; ``rows`` are indices."""
        if self.importance is None:
            return self
        return replace(self, importance=self.importance[rows], derived={})

    def of_columns(self, columns: Tensor) -> Statistics:
        """Statistics of the matrix with only these columns and inputs; ``columns`` are indices."""
        moment, mean, importance = self.second_moment, self.mean_absolute, self.importance
        return Statistics(
            second_moment=None if moment is None else moment[columns][:, columns],
            mean_absolute=None if mean is None else mean[columns],
            importance=None if importance is None else importance[:, columns],
        )

    def scaled(self, rows: Tensor, columns: Tensor) -> Statistics:
        """Statistics of the matrix with scaled rows and columns, whose inputs are divided by the column factors.

        Args:
            rows: Factors of the rows, shape ``(out_features,)``.
            columns: Factors of the columns, shape ``(in_features,)``.
        """
        moment, mean, importance = self.second_moment, self.mean_absolute, self.importance
        return Statistics(
            second_moment=None if moment is None else moment / columns / columns[:, None],
            mean_absolute=None if mean is None else mean / columns,
            importance=None if importance is None else importance / (rows[:, None] * columns).square(),
        )


NO_STATISTICS = Statistics()

StatisticsOf = Mapping[str, Statistics]
"""Statistics by module name."""
