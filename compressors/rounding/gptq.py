"""GPTQ: each column's rounding error is made up for by the columns that are still to be rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.hessian import BLOCK, DAMPING, factor_of_inverse, hessian
from paredown.compressors.rounding.grid import Grid, Rounded, Rounding, codes_of, roundings
from paredown.compressors.rounding.search import fitted_grid
from paredown.space.errors import EvaluationError
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor


MOST_DAMPING = 100.0
"""Most damping, as a share of the mean diagonal; rounding errors of a second moment take far less."""


def gptq(weight: Tensor, grid: Grid, statistics: Statistics) -> Rounded:
    """Codes of small error in the layer's output, found column by column, those of the largest inputs first.

    Scales and zero points of all groups are fitted before the columns are put in order ("static groups"), so that the
    order costs no bytes; a weight counts as much as its error would after all others made up for it. Columns whose inputs
    are always zero are rounded to nearest.

    Source:
        Frantar et al., 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", arXiv 2210.17323,
        algorithm 1; order and static groups as in its authors' code.
    """
    order, factor = inverse_factor(statistics)
    importance = weight.new_empty(len(order))
    importance[order] = 1 / factor.square().sum(0)
    scale, zero = fitted_grid(weight.view(len(weight), -1, grid.group), grid, importance.view(1, -1, grid.group))
    codes = compensated_codes(weight, scale, zero, grid, order, factor)
    return Rounded(codes=codes, scale=scale.squeeze(-1), zero=zero.squeeze(-1))


def inverse_factor(statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Columns by falling second moment, and the upper triangular ``U`` with ``U' U`` the inverse of the Hessian in that order.

    Kept with the statistics: several bit-widths of a matrix, and several matrices that read the same inputs, share it.
    """
    if "gptq" not in statistics.derived:
        moment = statistics["second_moment"]
        order = moment.diagonal().argsort(descending=True, stable=True)
        statistics.derived["gptq"] = order, _damped_factor(moment[order][:, order])
    found: tuple[Tensor, Tensor] = statistics.derived["gptq"]
    return found


def _damped_factor(moment: Tensor) -> Tensor:
    """The factor with as little damping as makes the Hessian positive definite in float32.

    Raises:
        EvaluationError: If even `MOST_DAMPING` does not: the matrix is no second moment.
    """
    damping = DAMPING
    while True:
        try:
            return factor_of_inverse(hessian(moment, damping))
        except EvaluationError:
            damping *= 10
            if damping > MOST_DAMPING:
                raise


def compensated_codes(weight: Tensor, scale: Tensor, zero: Tensor, grid: Grid, order: Tensor, factor: Tensor) -> Tensor:
    """Codes of a matrix, each column rounded to nearest after the errors of those before it were passed on.

    Args:
        weight: Shape ``(rows, columns)``; not modified.
        scale: Shape ``(rows, groups, 1)``.
        zero: As ``scale``.
        grid: The grid.
        order: The columns in their order.
        factor: As `inverse_factor` gives it.
    """
    import torch

    columns = weight.T[order]  # a copy, in which each column is contiguous
    step, middle = by_column(scale, grid, order), by_column(zero, grid, order)
    codes = torch.empty_like(columns)
    for start in range(0, len(columns), BLOCK):
        stop = min(start + BLOCK, len(columns))
        inside = factor[start:stop, start:stop].contiguous()
        errors = torch.empty(stop - start, len(weight))
        for i, j in enumerate(range(start, stop)):
            column = columns[j] - inside[:i, i] @ errors[:i]
            codes[j] = codes_of(column, step[j], middle[j], grid)
            errors[i] = (column - (codes[j] - middle[j]) * step[j]) / inside[i, i]
        columns[stop:] -= factor[start:stop, stop:].T @ errors
    return codes[order.argsort()].T.contiguous()


def by_column(grouped: Tensor, grid: Grid, order: Tensor) -> Tensor:
    """What is known of each group, shape ``(rows, groups, 1)``, for each column in an order; shape ``(columns, rows)``."""
    return grouped[:, order // grid.group, 0].T.contiguous()


roundings.register("gptq")(Rounding(round=gptq, needs=frozenset({"second_moment"})))
