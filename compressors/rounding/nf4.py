"""NormalFloat4: 16 levels at quantiles of a normal distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.rounding.grid import Grid, Rounded, Rounding, roundings, stored
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor

# fmt: off
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)
# fmt: on
"""Value of each code, in units of the scale."""


def nf4(weight: Tensor, grid: Grid, statistics: Statistics) -> Rounded:
    """The nearest level to each weight, scaled by the largest magnitude of its group.

    Source:
        Dettmers et al., 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv 2305.14314, section 3 and the
        table of values in its appendix. Its quantization of the scales ("double quantization") is left out: scales are
        bfloat16, as for every grid here.
    """
    import torch

    grouped = weight.view(len(weight), -1, grid.group)
    scale = stored(grouped.abs().amax(-1, keepdim=True))
    levels = torch.tensor(LEVELS)
    codes = torch.bucketize(grouped / scale, (levels[1:] + levels[:-1]) / 2)
    scale = scale.squeeze(-1)
    return Rounded(codes=codes.view(weight.shape), scale=scale, zero=torch.zeros_like(scale))


def _fault(grid: Grid) -> str | None:
    if grid.bits != 4:
        return f"nf4 has 16 levels and needs 4 bits, got {grid.bits}; use bits=4 or another algorithm"
    return None if grid.symmetric else "nf4 has no zero points; use symmetric=true or another algorithm"


roundings.register("nf4")(Rounding(round=nf4, levels=LEVELS, fault=_fault))
