"""What calibration says of a matrix: the numbers that calibrated methods ask for."""

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
    """Statistics of one matrix ``(out_features, in_features)``, float32; None where they were not collected.

    Attributes:
        second_moment: Mean of x x' over the calibration tokens' inputs x; ``(in_features, in_features)``.
        mean_absolute: Mean of abs(x); ``(in_features,)``.
        importance: How much the squared error of each entry matters: the diagonal of the Fisher information; the matrix's shape.
        derived: What methods computed from these and keep from one choice to the next (factorisations), by their own names.
    """

    second_moment: Tensor | None = None
    mean_absolute: Tensor | None = None
    importance: Tensor | None = None
    derived: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: Statistic) -> Tensor:
        """A statistic that must be there.

        Raises:
            PlanError: If it was not collected.
            EvaluationError: If it cannot be one: not finite, or a negative mean square.
        """
        found: Tensor | None = getattr(self, name)
        if found is None:
            raise PlanError(
                f"no {name} of the inputs is known: the method is calibrated, give calibration texts (--data)"
            )
        if f"sound {name}" not in self.derived:
            squares = found.diagonal() if name == "second_moment" else found
            if not (found.isfinite().all() and (squares >= 0).all()):
                raise EvaluationError(
                    f"the {name} of a matrix's inputs has values that are negative or not finite: its statistics are damaged; "
                    "remove the folder statistics of the bank, then run the same command again"
                )
            self.derived[f"sound {name}"] = True
        return found

    def only(self, names: frozenset[Statistic]) -> Statistics:
        """Those that a choice asks for, and no others: what it gives may depend on nothing else."""
        return Statistics(**{name: getattr(self, name) for name in names}, derived=self.derived)

    def of_rows(self, rows: Tensor) -> Statistics:
        """Those of the matrix with these rows alone; ``rows`` are indices."""
        if self.importance is None:
            return self
        return replace(self, importance=self.importance[rows], derived={})

    def of_columns(self, columns: Tensor) -> Statistics:
        """Those of the matrix with these columns alone, which reads only these inputs; ``columns`` are indices."""
        moment, mean, importance = self.second_moment, self.mean_absolute, self.importance
        return Statistics(
            second_moment=None if moment is None else moment[columns][:, columns],
            mean_absolute=None if mean is None else mean[columns],
            importance=None if importance is None else importance[:, columns],
        )

    def scaled(self, rows: Tensor, columns: Tensor) -> Statistics:
        """Those of the matrix with rows and columns scaled, whose inputs are scaled by the inverse of the columns' scales.

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
"""Statistics by name of the module."""
