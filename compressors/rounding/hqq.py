"""HQQ: grids fitted to most of a group's weights, its outliers left aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.rounding.grid import Grid, Rounded, Rounding, codes_of, roundings, stored
from paredown.compressors.rounding.nearest import round_to_nearest
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor

NORM = 0.7
"""The p of the norm whose p-th power is made small: below 1, so that few large errors weigh less than many small ones."""

PENALTY, GROWTH, STEPS = 10.0, 1.01, 20
"""Of the quadratic term that splits the problem: its first weight, the factor by which it grows, and the number of steps."""


def hqq(weight: Tensor, grid: Grid, statistics: Statistics) -> Rounded:
    """Half-quadratic splitting, from the grid that spans the weights; the best grid on the way by the norm, the first included.

    In turns, the errors are shrunk to those of the outliers, and the grid is fitted to the weights without them. Errors are
    shrunk in steps of the grid, which makes the penalty the same for weights of any size.

    Source:
        Badri & Shaji, 2023, "Half-Quadratic Quantization of Large Machine Learning Models", Mobius Labs. There only the zero
        point is fitted, to any real number. Zero points are integers in the files here, which would leave nothing to fit, so the
        scale is fitted with them.
    """
    import torch

    start = round_to_nearest(weight, grid, statistics)
    scale, zero = start.scale.unsqueeze(-1), start.zero.unsqueeze(-1)
    grouped = weight.view(len(weight), -1, grid.group)
    best, lowest, penalty = (scale, zero), _norm(grouped, scale, zero, grid), PENALTY
    for _ in range(STEPS):
        codes = codes_of(grouped, scale, zero, grid)
        outliers = _shrunk(grouped / scale - (codes - zero), penalty) * scale
        scale, zero = _fitted(grouped - outliers, codes, scale, grid)
        norm = _norm(grouped, scale, zero, grid)
        best = torch.where(norm < lowest, scale, best[0]), torch.where(norm < lowest, zero, best[1])
        lowest = torch.minimum(norm, lowest)
        penalty *= GROWTH
    codes = codes_of(grouped, *best, grid)
    return Rounded(codes=codes.view(weight.shape), scale=best[0].squeeze(-1), zero=best[1].squeeze(-1))


def _shrunk(error: Tensor, penalty: float) -> Tensor:
    """The generalized soft-thresholding of Badri & Shaji: small errors are zero, large ones nearly what they were."""
    magnitude = error.abs().clamp(min=1e-8)
    return error.sign() * (magnitude - magnitude ** (NORM - 1) / penalty).clamp(min=0)


def _fitted(target: Tensor, codes: Tensor, scale: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and whole zero point of least squares for these codes; the scale as it was where all codes are the same."""
    import torch

    def mean(values: Tensor) -> Tensor:
        return values.mean(-1, keepdim=True)

    spread = mean(codes.square()) - mean(codes).square()
    slope = (mean(codes * target) - mean(codes) * mean(target)) / spread.clamp(min=1e-12)
    slope = torch.where((spread > 1e-6) & (slope > 0), slope, scale)
    zero = (mean(codes) - mean(target) / slope).round().clamp(0, grid.top)
    steps = codes - zero
    fitted = mean(steps * target) / mean(steps.square()).clamp(min=1e-12)
    return stored(torch.where(fitted > 0, fitted, scale)), zero


def _norm(grouped: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> Tensor:
    """The p-th power of the norm of each group's errors."""
    error = (codes_of(grouped, scale, zero, grid) - zero) * scale - grouped
    return (error.abs() ** NORM).sum(-1, keepdim=True)


def _fault(grid: Grid) -> str | None:
    return (
        "hqq fits zero points, which a symmetric grid has not; use symmetric=false or another algorithm"
        if grid.symmetric
        else None
    )


roundings.register("hqq")(Rounding(round=hqq, fault=_fault))
