"""Weighted k-means in one dimension, for codebooks of scalar values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 100
"""Maximum number of Lloyd iterations."""

CELLS = 512
"""Maximum number of cells. More distinct values than this are grouped into cells, and Lloyd's iterations start from the
optimal clusters of whole cells."""


def codebook_of(values: Tensor, importance: Tensor, clusters: int) -> Tensor:
    """Codebook with a small weighted squared error to the given values, ascending; float32, shape ``(clusters,)``.

    The codebook is optimal for up to `CELLS` distinct values. For more, Lloyd's iterations refine the optimal clusters
    of whole cells. In one dimension, clusters are intervals of the sorted values, so an iteration searches the borders
    and computes no distances.

    Args:
        values: Shape ``(n,)``; not modified.
        importance: Weight of each squared error, at least 0; same shape.
        clusters: Number of clusters.

    Source:
        Lloyd, 1982, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28(2), method I.
    """
    import torch

    distinct, place = values.double().unique(return_inverse=True)
    if len(distinct) <= clusters:
        padded: Tensor = torch.nn.functional.pad(
            distinct, (0, clusters - len(distinct)), value=float(distinct[-1])
        ).float()
        return padded
    mass = torch.zeros(len(distinct), dtype=torch.float64).index_add_(0, place, importance.double())
    total = _cumulated(mass)
    sums = _cumulated(mass * distinct)
    borders = optimal_borders(distinct, mass, _cells(distinct, mass), clusters)
    centres = distinct[borders[:-1]]
    for _ in range(ROUNDS):
        inside = total[borders[1:]] - total[borders[:-1]]
        moved = torch.where(inside > 0, (sums[borders[1:]] - sums[borders[:-1]]) / inside, centres)
        if torch.equal(moved, centres):
            break
        centres = moved.sort().values
        borders = torch.nn.functional.pad(torch.searchsorted(distinct, (centres[1:] + centres[:-1]) / 2), (1, 1))
        borders[-1] = len(distinct)
    codebook: Tensor = centres.float()
    return codebook


def optimal_borders(values: Tensor, mass: Tensor, cells: Tensor, clusters: int) -> Tensor:
    """Index where each cluster begins, then n, for the clusters of whole cells with the least weighted squared error.

    The shape is ``(clusters + 1,)``.

    Args:
        values: Ascending values; float64, shape ``(n,)``.
        mass: Weight of each value; same shape.
        cells: Index where each cell begins, then n; ascending, at least ``clusters + 1`` entries.
        clusters: Number of clusters.

    Source:
        Wang & Song, 2011, "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic Programming",
        The R Journal 3(2).
    """
    import torch

    centred = values - values.mean()
    total, sums, squares = (_cumulated(mass * centred**power)[cells] for power in range(3))
    inside, sum_inside = total - total[:, None], sums - sums[:, None]
    cost = (squares - squares[:, None]) - torch.where(inside > 0, sum_inside.square() / inside, 0)
    cost = torch.where(torch.ones_like(cost, dtype=torch.bool).triu(1), cost, torch.inf)  # [first, end] of a cluster
    least, choices = cost[0], []
    for _ in range(clusters - 1):
        least, first = (least[:, None] + cost).min(0)
        choices.append(first)
    border = torch.tensor(len(cells) - 1)
    borders = [border]
    for first in reversed(choices):
        border = first[border]
        borders.append(border)
    return cells[torch.stack([torch.tensor(0), *reversed(borders)])]


def _cells(values: Tensor, mass: Tensor) -> Tensor:
    """Index where each cell begins, then n.

    Half of the borders divide the values into equal counts. The other half are spaced as densely as the points of a
    good codebook.

    Source:
        Panter & Dite, 1951, "Quantization distortion in pulse-count modulation with nonuniform spacing of levels",
        Proceedings of the IRE 39(1): points as dense as the cube root of the density of the values.
    """
    import torch

    count = len(values)
    if count <= CELLS:
        return torch.arange(count + 1)
    even = torch.linspace(0, count, CELLS // 2 + 1, dtype=torch.float64).long()
    share = _cumulated(mass[1:].pow(1 / 3) * values.diff().pow(2 / 3))  # (mass / width)**(1/3) * width
    dense = torch.searchsorted(share, torch.linspace(0, float(share[-1]), CELLS // 2 + 1, dtype=torch.float64))
    cells: Tensor = torch.cat([even, dense.clamp(max=count)]).unique()
    return cells


def _cumulated(values: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.pad(values.cumsum(0), (1, 0))
