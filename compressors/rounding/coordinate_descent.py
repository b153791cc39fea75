"""Codes and scales of GPTQ improved in turns, until the layer's output error hardly falls any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.descent import swept
from paredown.compressors.hessian import hessian
from paredown.compressors.rounding.gptq import by_column, gptq, inverse_factor
from paredown.compressors.rounding.grid import Grid, Rounded, Rounding, codes_of, roundings, stored
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 2
"""Times that the scales are fitted again; a sweep over the codes comes before each and after the last."""

RIDGE = 1e-4
"""How much a scale that hardly matters is held where it is, as a share of the mean curvature."""

CHUNK = 1 << 23
"""Most numbers in the normal equations that are solved at once."""


def coordinate_descent(weight: Tensor, grid: Grid, statistics: Statistics) -> Rounded:
    """Starts from GPTQ; then each code in turn is the best given all others, and the scales of a row are the best given its codes.

    The output error, the Hessian damped as GPTQ's, never grows from step to step.

    Source:
        Behdin et al., 2023, "QuantEase: Optimization-based Quantization for Language Models", arXiv 2309.01885, for cyclic coordinate
        descent over the codes; the turns with the scales are those of Zhang et al., 2024, "COMQ: A Backpropagation-Free Algorithm for
        Post-Training Quantization", arXiv 2403.07134, here for all groups of a row at once.
    """
    start = gptq(weight, grid, statistics)
    order, _ = inverse_factor(statistics)
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
        codes: As ``weight``; not modified.
        scale: Shape ``(rows, groups, 1)``.
        zero: As ``scale``.
        grid: The grid.
        order: In which the columns are visited.
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
    """The scales of least output error with these codes, as bfloat16 holds them; a row that would not gain keeps its own."""
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
