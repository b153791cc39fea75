"""HQQ: grids fitted under a norm that is robust to outliers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.rounding.grid import Grid, Rounded, Rounding, codes_of, roundings, stored
from paredown.compressors.rounding.nearest import round_to_nearest
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor

NORM = 0.7
"""Exponent p of the loss ``sum(abs(error) ** p)``; below 1, so that few large errors cost less than many small ones."""

PENALTY, GROWTH, STEPS = 10.0, 1.01, 20
"""Half-quadratic splitting: initial penalty, its growth factor per step, and the number of steps."""


def hqq(weight: Tensor, grid: Grid, statistics: Statistics) -> Rounded:
    """Half-quadratic splitting started from the min-max grid; each group keeps the visited grid of lowest loss.

    Two steps alternate: shrinkage separates the outliers from the errors, then the grid is fitted to the weights
    without them. Shrinkage works in units of the grid step, so the penalty does not depend on the size of the weights.

    Source:
        Badri & Shaji, 2023, "Half-Quadratic Quantization of Large Machine Learning Models", Mobius Labs. The original
        fits only the zero point, as a real number. Stored zero points are integers here, which would leave nothing to
        fit, so the scale is fitted too.
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
    """Generalized soft-thresholding of Badri & Shaji: small errors become zero, large ones hardly shrink."""
    magnitude = error.abs().clamp(min=1e-8)
    return error.sign() * (magnitude - magnitude ** (NORM - 1) / penalty).clamp(min=0)


def _fitted(target: Tensor, codes: Tensor, scale: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Least-squares scale and integer zero point for these codes; the scale is unchanged where all codes are equal."""
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
    """Sum of each group's absolute errors to the power `NORM`, shape ``(rows, groups, 1)``."""
    error = (codes_of(grouped, scale, zero, grid) - zero) * scale - grouped
    return (error.abs() ** NORM).sum(-1, keepdim=True)


def _fault(grid: Grid) -> str | None:
    return (
        "hqq fits zero points, but a symmetric grid has none; use symmetric=false or another algorithm"
        if grid.symmetric
        else None
    )


roundings.register("hqq")(Rounding(round=hqq, fault=_fault))
