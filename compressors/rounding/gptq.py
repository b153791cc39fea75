"""GPTQ: columns are rounded in turn, and the rounding error of each is compensated in those still to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.numerics.hessian import BLOCK, inverse_factor
from paredown.compressors.rounding.grid import Grid, Rounded, Rounding, codes_of, roundings
from paredown.compressors.rounding.range_search import fitted_grid
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor


def gptq(weight: Tensor, grid: Grid, statistics: Statistics) -> Rounded:
    """Codes that keep the output error small, found column by column, largest inputs first.

    Scales and zero points of all groups are fitted before the columns are reordered ("static groups"), so the order
    costs no bytes. In that fit a weight's squared error is weighted by the error that remains once all other weights
    have compensated for it. Columns whose inputs are always zero are rounded to nearest.

    Source:
        Frantar et al., 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", arXiv
        2210.17323, algorithm 1; order and static groups as in its authors' code.
    """
    order, factor = ordered_factor(statistics)
    importance = weight.new_empty(len(order))
    importance[order] = 1 / factor.square().sum(0)
    scale, zero = fitted_grid(weight.view(len(weight), -1, grid.group), grid, importance.view(1, -1, grid.group))
    codes = compensated_codes(weight, scale, zero, grid, order, factor)
    return Rounded(codes=codes, scale=scale.squeeze(-1), zero=zero.squeeze(-1))


def ordered_factor(statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Columns by falling second moment, and `inverse_factor` in that order.

    Both are cached with the statistics:
    all bit-widths of a matrix, and all matrices that read the same inputs, share them.
    """
    if "gptq" not in statistics.derived:
        moment = statistics["second_moment"]
        order = moment.diagonal().argsort(descending=True, stable=True)
        statistics.derived["gptq"] = order, inverse_factor(moment[order][:, order])
    found: tuple[Tensor, Tensor] = statistics.derived["gptq"]
    return found


def compensated_codes(weight: Tensor, scale: Tensor, zero: Tensor, grid: Grid, order: Tensor, factor: Tensor) -> Tensor:
    """Codes of a matrix, each column rounded to nearest after the errors of earlier columns were compensated in it.

    Args:
        weight: Shape ``(rows, columns)``; not modified.
        scale: Shape ``(rows, groups, 1)``.
        zero: Shape ``(rows, groups, 1)``.
        grid: The grid.
        order: Order in which the columns are rounded.
        factor: Inverse factor in that order, from `ordered_factor`.
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
    """Values per group, shape ``(rows, groups, 1)``, expanded to ordered columns, shape ``(columns, rows)``."""
    return grouped[:, order // grid.group, 0].T.contiguous()


roundings.register("gptq")(Rounding(round=gptq, needs=frozenset({"second_moment"})))
