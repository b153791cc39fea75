"""Coordinate descent over what a matrix is stored as; importing this imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from paredown.compressors.hessian import BLOCK

if TYPE_CHECKING:
    from torch import Tensor

Choose = Callable[[int, "Tensor", "Tensor"], "Tensor"]
"""The best values of a run, from its first column, its values now, and minus half the gradient of the output error by them."""


def swept(weight: Tensor, values: Tensor, curvature: Tensor, width: int, choose: Choose) -> Tensor:
    """Values after one sweep: each run of columns in turn is chosen with all others fixed.

    Args:
        weight: What the values stand for, transposed: shape ``(columns, rows)``; not modified.
        values: Same shape; not modified.
        curvature: H of the output error ``trace(E H E')``, shape ``(columns, columns)``.
        width: Columns of a run, a divisor of the columns.
        choose: Called once for each run, with tensors of shape ``(width, rows)``; with other values d greater by ``v``, a row's error
            is greater by ``v H v' - 2 v s``, where H is the run's block of the curvature and s the row of the last tensor.
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
