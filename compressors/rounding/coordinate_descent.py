"""Coordinate descent on codes and scales, started from GPTQ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.numerics.coordinate_descent import swept
from paredown.compressors.numerics.hessian import hessian
from paredown.compressors.rounding.gptq import by_column, gptq, ordered_factor
from paredown.compressors.rounding.grid import Grid, Rounded, Rounding, codes_of, roundings, stored
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 2
"""Refits of the scales; a sweep over the codes precedes each, and one more follows the last."""

RIDGE = 1e-4
"""Ridge that pulls each scale towards its present value, as a share of the mean curvature."""

CHUNK = 1 << 23
"""Upper bound on the entries of the normal equations that are solved in one batch."""


def coordinate_descent(weight: Tensor, grid: Grid, statistics: Statistics) -> Rounded:
    """Codes and scales after coordinate descent on the output error, started from GPTQ.

    Each sweep visits the codes column by column and sets each to its optimum given all others. Between sweeps the
    scales of a row are refitted by least squares to its codes. The output error never grows from step to step; its
    Hessian is damped as in GPTQ.

    Source:
        Behdin et al., 2023, "QuantEase: Optimization-based Quantization for Language Models", arXiv 2309.01885, for
        cyclic coordinate descent over the codes; Zhang et al., 2024, "COMQ: A Backpropagation-Free Algorithm for
        Post-Training Quantization", arXiv 2403.07134, for alternating with the scales, here for all groups of a row at
        once.
    """
    start = gptq(weight, grid, statistics)
    order, _ = ordered_factor(statistics)
    curvature = hessian(statistics["second_moment"])
    codes, scale, zero = start.codes, start.scale.unsqueeze(-1), start.zero.unsqueeze(-1)
    for _ in range(ROUNDS):
        codes = swept_codes(weight, codes, scale, zero, grid, order, curvature)
        scale = fitted_scale(weight, codes, scale, zero, grid, curvature)
    codes = swept_codes(weight, codes, scale, zero, grid, order, curvature)
    return Rounded(codes=codes, scale=scale.squeeze(-1), zero=start.zero)


def swept_codes(
    weight: Tensor, codes: Tensor, scale: Tensor, zero: Tensor, grid: Grid, order: Tensor, curvature: Tensor
) -> Tensor:
    """The codes after one sweep of coordinate descent.

    Args:
        weight: Shape ``(rows, columns)``; not modified.
        codes: Same shape; not modified.
        scale: Shape ``(rows, groups, 1)``.
        zero: Shape ``(rows, groups, 1)``.
        grid: The grid.
        order: Order in which the columns are visited.
        curvature: Positive definite, shape ``(columns, columns)``.
    """
    curvature = curvature[order][:, order]
    step, middle = by_column(scale, grid, order), by_column(zero, grid, order)
    new = codes.T[order]

    def choose(j: int, value: Tensor, slope: Tensor) -> Tensor:
        new[j] = codes_of(value[0] + slope[0] / curvature[j, j], step[j], middle[j], grid)
        return ((new[j] - middle[j]) * step[j]).unsqueeze(0)

    swept(weight.T[order], (new - middle) * step, curvature, 1, choose)
    return new[order.argsort()].T.contiguous()


def fitted_scale(weight: Tensor, codes: Tensor, scale: Tensor, zero: Tensor, grid: Grid, curvature: Tensor) -> Tensor:
    """The least-squares scales for these codes, rounded to bfloat16; a row whose error would not fall keeps its own."""
    import torch

    rows = max(1, CHUNK // scale.shape[1] ** 2)
    pieces = zip(weight.split(rows), codes.split(rows), scale.split(rows), zero.split(rows), strict=True)
    return torch.cat([_fitted_rows(*piece, grid, curvature) for piece in pieces])


def _fitted_rows(weight: Tensor, codes: Tensor, scale: Tensor, zero: Tensor, grid: Grid, curvature: Tensor) -> Tensor:
    import torch

    rows, groups = scale.shape[:2]
    steps = codes.view(rows, groups, grid.group) - zero
    normal = torch.empty(rows, groups, groups)
    for group, part in enumerate(curvature.split(grid.group)):
        normal[:, group] = ((steps[:, group] @ part).view(steps.shape) * steps).sum(-1)
    wanted = ((weight @ curvature).view(steps.shape) * steps).sum(-1, keepdim=True)
    ridge = RIDGE * normal.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1) + 1e-6
    solution, _ = torch.linalg.solve_ex(normal + ridge * torch.eye(groups), wanted + ridge * scale)
    fitted = stored(solution)

    def loss(scale: Tensor) -> Tensor:
        return (scale * (normal @ scale - 2 * wanted)).sum(1, keepdim=True)

    return torch.where(loss(fitted) < loss(scale), fitted, scale)


roundings.register("coordinate-descent")(Rounding(round=coordinate_descent, needs=frozenset({"second_moment"})))
