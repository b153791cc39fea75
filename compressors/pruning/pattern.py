"""Sparsity patterns, which keep equally many weights in each group of a row, and the registry of pruning criteria."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paredown.space.statistics import Statistic, Statistics
from paredown.space.system.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A sparsity pattern: ``kept`` weights of every ``group`` neighbours in a row.

    Attributes:
        kept: Weights kept in each group.
        group: Weights in a group; the whole row if positions are unconstrained.
    """

    kept: int
    group: int

    def mask(self, scores: Tensor) -> Tensor:
        """Mask of the highest scores of each group; shape ``(rows, columns)``."""
        grouped = scores.reshape(len(scores), -1, self.group)
        return highest(grouped, self.kept).view(scores.shape)


def highest(scores: Tensor, count: Tensor | int) -> Tensor:
    """Mask of the ``count`` highest scores along the last dimension.

    Ties go to the first. ``count`` broadcasts to ``(..., 1)``.
    """
    import torch

    order = scores.argsort(dim=-1, descending=True, stable=True)
    taken = (torch.arange(scores.shape[-1]) < count).expand(scores.shape)
    return torch.zeros(scores.shape, dtype=torch.bool).scatter_(-1, order, taken)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """A pruned matrix.

    Attributes:
        mask: True where a weight is kept, shape ``(rows, columns)``.
        weight: Values of the kept weights, same shape; entries outside the mask are meaningless.
    """

    mask: Tensor
    weight: Tensor


Prune = Callable[["Tensor", Pattern, Statistics], Pruned]


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """A pruning criterion.

    Attributes:
        prune: Prunes a float32 matrix ``(rows, columns)``; does not modify it.
        needs: Statistics that it requires.
    """

    prune: Prune
    needs: frozenset[Statistic] = frozenset()


criteria: Registry[Criterion] = Registry("algorithm", group="paredown.criteria", entry=Criterion)
