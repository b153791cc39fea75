"""Round to nearest, on the range of the largest weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.rounding.grid import Grid, Rounded, Rounding, codes_of, roundings, stored
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor


def round_to_nearest(weight: Tensor, grid: Grid, statistics: Statistics) -> Rounded:
    """Each group's grid spans its weights: up to the largest magnitude (symmetric), or from the smallest to the largest."""
    import torch

    grouped = weight.view(len(weight), -1, grid.group)
    low = grouped.amin(-1, keepdim=True).clamp(max=0)
    high = grouped.amax(-1, keepdim=True).clamp(min=0)
    if grid.symmetric:
        scale = stored(torch.maximum(-low, high) / (grid.half - 0.5))
        zero = torch.full_like(scale, grid.half)
    else:
        scale = stored((high - low) / grid.top)
        zero = (-low / scale).round().clamp(0, grid.top)
    codes = codes_of(grouped, scale, zero, grid)
    return Rounded(codes=codes.view(weight.shape), scale=scale.squeeze(-1), zero=zero.squeeze(-1))


roundings.register("round-to-nearest")(Rounding(round=round_to_nearest))
