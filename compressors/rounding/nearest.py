"""Round to nearest on the min-max range of each group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.rounding.grid import Grid, Rounded, Rounding, codes_of, roundings, stored
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor


def round_to_nearest(weight: Tensor, grid: Grid, statistics: Statistics) -> Rounded:
    """Codes on a grid that spans the weights of each group.

    A symmetric grid reaches to the largest magnitude; an asymmetric one spans the smallest to the largest weight.

    Source:
        Nagel et al., 2021, "A White Paper on Neural Network Quantization", arXiv 2106.08295, section 3.1, min-max
        range.
    """
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
