"""SparseGPT: columns are pruned in turn, and the columns to their right compensate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.numerics.hessian import BLOCK, inverse_factor
from paredown.compressors.pruning.pattern import Criterion, Pattern, Pruned, criteria, highest
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor


def sparsegpt(weight: Tensor, pattern: Pattern, statistics: Statistics) -> Pruned:
    """Optimal brain surgery column by column, with the Hessian of the squared output error.

    Pruning a weight costs ``w**2 / U[j, j]**2``, where U is the upper Cholesky factor of the inverse Hessian. The mask
    is decided for `BLOCK` columns at a time, or one group if that is shorter, once the errors of all earlier columns
    have been passed on to them. Every row keeps equally many weights: its remaining quota goes to the costliest of all
    remaining columns of the group, and only the decisions inside the block are final. The loss from rounding the values
    in a later step is not compensated.

    Source:
        Frantar & Alistarh, 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", arXiv
        2301.00774, section 3. The original prunes a fixed share of each block over all rows together; here each row
        keeps its own share.
    """
    import torch

    if "sparsegpt" not in statistics.derived:  # other choices of the matrix share it
        statistics.derived["sparsegpt"] = inverse_factor(statistics["second_moment"])
    factor: Tensor = statistics.derived["sparsegpt"]
    spread = factor.diagonal()
    rows, columns = weight.shape
    weight = weight.clone()
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    settle = min(BLOCK, pattern.group)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = torch.zeros(rows, stop - start)
        for j in range(start, stop):
            first = j // pattern.group * pattern.group
            if (j - first) % settle == 0:
                left = pattern.kept - mask[:, first:j].sum(1, keepdim=True)
                end = min(j + settle, stop)
                cost = weight[:, j : first + pattern.group] / spread[j : first + pattern.group]
                mask[:, j:end] = highest(cost.square(), left)[:, : end - j]
            error = torch.where(mask[:, j], 0, weight[:, j]) / spread[j]
            errors[:, j - start] = error
            weight[:, j + 1 : stop] -= error[:, None] * factor[j, j + 1 : stop]
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return Pruned(mask=mask, weight=weight)


criteria.register("sparsegpt")(Criterion(prune=sparsegpt, needs=frozenset({"second_moment"})))
