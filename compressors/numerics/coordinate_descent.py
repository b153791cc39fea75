"""Coordinate descent over the stored values of a matrix; importing this imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from paredown.compressors.numerics.hessian import BLOCK

if TYPE_CHECKING:
    from torch import Tensor

Choose = Callable[[int, "Tensor", "Tensor"], "Tensor"]
"""Function that returns the best values of a run of columns.

Its arguments are the run's first column, its current values, and minus half the gradient of the output error with
respect to them."""


def swept(weight: Tensor, values: Tensor, curvature: Tensor, width: int, choose: Choose) -> Tensor:
    """Values after one sweep: each run of columns in turn is chosen with all others fixed.

    Args:
        weight: Matrix that the values approximate, transposed: shape ``(columns, rows)``; not modified.
        values: Current values; same shape; not modified.
        curvature: H of the output error ``trace(E H E')``, shape ``(columns, columns)``.
        width: Columns in a run; divides the number of columns.
        choose: Called once per run, with tensors of shape ``(width, rows)``. If a row's values change by ``v``, its
            error grows by ``v H v' - 2 v s``, where H is the run's block of the curvature and s that row's part of the
            last tensor.
    """
    import torch

    values = values.clone()
    slopes = curvature @ (weight - values)
    block = max(1, BLOCK // width) * width
    for start in range(0, len(values), block):
        stop = min(start + block, len(values))
        change = torch.empty(stop - start, weight.shape[1])
        for first in range(start, stop, width):
            run, done = slice(first, first + width), first - start
            chosen = choose(first, values[run], slopes[run] + curvature[run, start:first] @ change[:done])
            change[done : done + width] = values[run] - chosen
            values[run] = chosen
        slopes[stop:] += curvature[stop:, start:stop] @ change
    return values
