"""GPTQ: each column's rounding error is made up for by the columns that are still to be rounded."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from paredown.compressors.rounding.grid import Grid, Rounded, Rounding, codes_of, roundings
from paredown.compressors.rounding.search import fitted_grid
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor

DAMPING = 0.01
"""Added to the Hessian's diagonal, as a share of its mean."""

BLOCK = 128
"""Columns after which their errors are passed on to all columns to come."""


def gptq(weight: Tensor, grid: Grid, statistics: Statistics) -> Rounded:
    """Codes of small error in the layer's output, found column by column, those of the largest inputs first.

    The scales and zero points of all groups are fitted before the columns are put in order ("static groups"), so that
    the order costs no bytes. Inputs that are always zero are rounded to nearest.

    Source:
        Frantar et al., 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", arXiv 2210.17323,
        algorithm 1.
    """
    grouped = weight.view(len(weight), -1, grid.group)
    importance = damped(statistics["second_moment"]).diagonal().view(1, -1, grid.group)
    scale, zero = fitted_grid(grouped, grid, importance)
    order, factor = inverse_factor(statistics)
    codes = compensated_codes(weight, scale, zero, grid, order, factor)
    return Rounded(codes=codes, scale=scale.squeeze(-1), zero=zero.squeeze(-1))


def damped(moment: Tensor, damping: float = DAMPING) -> Tensor:
    """A second moment with a share of its mean diagonal added to the diagonal; the identity for inputs that are all zero."""
    import torch

    mean = float(moment.diagonal().mean())
    return moment + (damping * mean if mean > 0 else 1.0) * torch.eye(len(moment))


def inverse_factor(statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Columns by falling second moment, and the upper triangular ``U`` with ``U' U`` the inverse of the Hessian in that order.

    Kept with the statistics: several bit-widths of a matrix, and several matrices that read the same inputs, share it.
    """
    if "gptq" not in statistics.derived:
        moment = statistics["second_moment"]
        order = moment.diagonal().argsort(descending=True, stable=True)
        statistics.derived["gptq"] = order, _inverse_cholesky(moment[order][:, order])
    found: tuple[Tensor, Tensor] = statistics.derived["gptq"]
    return found


def _inverse_cholesky(moment: Tensor) -> Tensor:
    import torch

    for attempt in count():
        # Of the reversed matrix: H = R R' with R upper triangular, so that U = R^-1, and H itself is never inverted.
        lower, failed = torch.linalg.cholesky_ex(damped(moment, DAMPING * 10**attempt).flip(0, 1))
        if not failed:
            break
    return torch.linalg.solve_triangular(lower.flip(0, 1), torch.eye(len(moment)), upper=True)


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

    columns = weight.T[order]  # columns are rows here: contiguous, and a copy
    group = order // grid.group
    codes = torch.empty_like(columns)
    for start in range(0, len(columns), BLOCK):
        stop = min(start + BLOCK, len(columns))
        errors = torch.zeros(stop - start, len(weight))
        inside = factor[start:stop, start:stop]
        steps, middle = scale[:, group[start:stop], 0].T.contiguous(), zero[:, group[start:stop], 0].T.contiguous()
        for i in range(stop - start):
            column = columns[start + i] - inside[:i, i] @ errors[:i]
            code = codes_of(column, steps[i], middle[i], grid)
            errors[i] = (column - (code - middle[i]) * steps[i]) / inside[i, i]
            codes[start + i] = code
        columns[stop:] -= factor[start:stop, stop:].T @ errors
    return codes[order.argsort()].T.contiguous()


roundings.register("gptq")(Rounding(round=gptq, needs=frozenset({"second_moment"})))
