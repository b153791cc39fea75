"""The places that stay, equally many in each group of a row; and the criteria that choose them, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paredown.space.registry import Registry
from paredown.space.statistics import Statistic, Statistics

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """So many of each group of neighbouring weights of a row stay.

    Attributes:
        kept: Weights of a group that stay.
        group: Weights in a group; a whole row where the places are free.
    """

    kept: int
    group: int

    def mask(self, scores: Tensor) -> Tensor:
        """True at the highest scores of each group; shape ``(rows, columns)``."""
        grouped = scores.reshape(len(scores), -1, self.group)
        return highest(grouped, self.kept).view(scores.shape)


def highest(scores: Tensor, count: Tensor | int) -> Tensor:
    """True at the ``count`` highest along the last dimension; the first of equals. Counts broadcast to ``(..., 1)``."""
    import torch

    order = scores.argsort(dim=-1, descending=True, stable=True)
    taken = (torch.arange(scores.shape[-1]) < count).expand(scores.shape)
    return torch.zeros(scores.shape, dtype=torch.bool).scatter_(-1, order, taken)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """What is left of a matrix.

    Attributes:
        mask: True where a weight stays, shape ``(rows, columns)``.
        weight: The matrix whose weights stay; elsewhere it means nothing.
    """

    mask: Tensor
    weight: Tensor


Prune = Callable[["Tensor", Pattern, Statistics], Pruned]


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """An algorithm.

    Attributes:
        prune: Prunes a float32 matrix ``(rows, columns)``, which it does not modify.
        needs: Statistics that it asks for.
    """

    prune: Prune
    needs: frozenset[Statistic] = frozenset()


criteria: Registry[Criterion] = Registry("algorithm")
