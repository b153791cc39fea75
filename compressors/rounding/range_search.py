"""Scales fitted to the weights: a search over clipping ranges, each refined by least squares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from paredown.compressors.rounding.grid import Grid, Rounded, Rounding, codes_of, roundings, stored
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor

SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.74, 0.68, 0.6, 0.52, 0.44)
"""Candidate clipping ranges, as shares of the group's full range."""

AT_ONCE = 1 << 15
"""Upper bound on the weights whose grids are fitted in one batch, so that intermediates stay in the CPU cache."""


def search(weight: Tensor, grid: Grid, statistics: Statistics) -> Rounded:
    """Codes and scales of least squared error among the candidate grids, weighted by importance where it is known.

    Source:
        Nagel et al., 2021, "A White Paper on Neural Network Quantization", arXiv 2106.08295, section 3.1, range by mean
        squared error; the least-squares scale of the resulting codes is added here.
    """
    rows = len(weight)
    grouped = weight.view(rows, -1, grid.group)
    importance = statistics.importance
    scale, zero = fitted_grid(grouped, grid, None if importance is None else importance.view(grouped.shape))
    codes = codes_of(grouped, scale, zero, grid)
    return Rounded(codes=codes.view(weight.shape), scale=scale.squeeze(-1), zero=zero.squeeze(-1))


def fitted_grid(grouped: Tensor, grid: Grid, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each group, both of shape ``(rows, groups, 1)``.

    Args:
        grouped: Weights, shape ``(rows, groups, group)``.
        grid: The grid.
        importance: Weight of each squared error; broadcasts to the shape of ``grouped``.
    """
    import torch

    rows = max(1, AT_ONCE // (grouped.shape[1] * grouped.shape[2]))
    fitted = []
    for start in range(0, len(grouped), rows):
        part = slice(start, start + rows)
        own = importance if importance is None or len(importance) == 1 else importance[part]
        fitted.append(_fitted_grid(grouped[part], grid, own))
    scales, zeros = zip(*fitted, strict=True)
    return torch.cat(scales), torch.cat(zeros)


def _fitted_grid(grouped: Tensor, grid: Grid, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    import torch

    best: tuple[Tensor, Tensor] | None = None
    best_error: Tensor | None = None
    for start, zero in _candidates(grouped, grid):
        steps = codes_of(grouped, start, zero, grid) - zero
        scale = _least_squares_scale(grouped, steps, start, importance)
        difference = ((codes_of(grouped, scale, zero, grid) - zero) * scale - grouped).square()
        error = (difference if importance is None else difference * importance).sum(-1, keepdim=True)
        if best is None or best_error is None:
            best, best_error = (scale, zero), error
        else:
            better = error < best_error
            best = (torch.where(better, scale, best[0]), torch.where(better, zero, best[1]))
            best_error = torch.minimum(error, best_error)
    assert best is not None
    return best


def _candidates(grouped: Tensor, grid: Grid) -> Iterator[tuple[Tensor, Tensor]]:
    """Candidate scales (rounded to bfloat16) and zero points, each of shape ``(rows, groups, 1)``."""
    import torch

    low = grouped.amin(-1, keepdim=True).clamp(max=0)
    high = grouped.amax(-1, keepdim=True).clamp(min=0)
    if grid.symmetric:
        reach = torch.maximum(-low, high)
        # The grid has one more code below zero; a negative scale moves that code to the side of the largest weight.
        sign = torch.where(high > -low, -1.0, 1.0)
        for shrink in SHRINK:
            yield stored(sign * reach * shrink / grid.half), torch.full_like(reach, grid.half)
    else:
        for shrink in SHRINK:
            scale = stored((high - low) * shrink / grid.top)
            yield scale, (-low * shrink / scale).round().clamp(0, grid.top)


def _least_squares_scale(grouped: Tensor, steps: Tensor, scale: Tensor, importance: Tensor | None) -> Tensor:
    """The least-squares scale for these grid steps; the given one where all steps are zero."""
    import torch

    weighted = steps if importance is None else steps * importance
    power = (weighted * steps).sum(-1, keepdim=True)
    fitted = (grouped * weighted).sum(-1, keepdim=True) / power.clamp(min=1e-30)
    return stored(torch.where((power > 0) & (fitted != 0), fitted, scale))


roundings.register("search")(Rounding(round=search))
