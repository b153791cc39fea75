"""A codebook of short vectors in place of a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from paredown.compressors.hessian import BLOCK, DAMPING, factor_of_inverse
from paredown.compressors.packing import pack, packed_columns, unpack
from paredown.space.choice import Choice, Part, Shape, methods
from paredown.space.site import Kind, Member
from paredown.space.statistics import NO_STATISTICS, Statistic, Statistics
from paredown.space.tensors import Layout, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

SEEDS = 2048
"""About so many vectors the first centroids are drawn from."""

ROUNDS = 10
"""Most rounds of k-means."""

CHUNK = 1024
"""Vectors whose distances are computed at a time: so few stay in the processor's cache."""

SAMPLE = 64
"""Vectors for each centroid, but 4096 at least, that the codebook is fitted to, spread over the matrix; all are coded with it."""


@methods.register("vector-quantize")
class VectorQuantize(Choice):
    """Each run of neighbouring weights of a row replaced by one of ``centroids`` vectors of the matrix, each row with its own scale.

    The codebook is found by k-means, weighted by what an error costs in the outputs. Runs are then coded from the one that
    reads the largest inputs to the smallest, and each makes up for the errors of those before it.

    Source:
        van Baalen et al., 2024, "GPTVQ: The Blessing of Dimensionality for LLM Quantization", arXiv 2402.15319; its compression
        and its update of the codebooks are not part of this, and k-means starts from k-means++ (Arthur & Vassilvitskii, 2007).
    """

    method: ClassVar[str] = "vector-quantize"

    dimensions: int = Field(default=2, ge=2, le=8, description="weights that share an index")
    centroids: int = Field(ge=2, le=256, description="vectors in the codebook")

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Codes of 2 to 4 bits a weight."""
        return [cls(centroids=count) for count in (16, 32, 64, 128, 256)] if kind == "linear" and member.shape[1] % 2 == 0 else ()

    @property
    def uses(self) -> frozenset[Statistic]:
        """Which errors cost how much."""
        return frozenset({"second_moment"})

    @property
    def storage_only(self) -> bool:
        """No kernel looks vectors up."""
        return True

    @property
    def bits(self) -> int:
        """Bits of an index."""
        return (self.centroids - 1).bit_length()

    def fault(self, shape: Shape) -> str | None:
        """Runs that do not divide the row."""
        if shape[1] % self.dimensions == 0:
            return None
        fits = [str(d) for d in range(2, 9) if shape[1] % d == 0]
        return f"dimensions {self.dimensions} does not divide in_features {shape[1]}; use {', '.join(fits) or 'another method'}"

    def own(self, shape: Shape, dtype: str) -> Layout:
        """Packed indices, the codebook, and the rows' scales."""
        return {
            "indices_packed": TensorSpec("int32", (shape[0], packed_columns(shape[1] // self.dimensions, self.bits))),
            "codebook": TensorSpec("bfloat16", (self.centroids, self.dimensions)),
            "row_scale": TensorSpec("bfloat16", (shape[0], 1)),
        }

    def encode(self, weight: Tensor, statistics: Statistics = NO_STATISTICS) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """Lloyd's rounds on a sample of the scaled runs, then one pass over the columns."""
        import torch

        order, factor = _inverse_factor(statistics["second_moment"], self.dimensions)
        corners = [
            factor[start : start + self.dimensions, start : start + self.dimensions] for start in range(0, len(factor), self.dimensions)
        ]
        metrics = torch.linalg.inv(torch.stack(corners))
        scale = weight.square().mean(1, keepdim=True).sqrt().clamp(min=1e-30).to(torch.bfloat16)
        scaled = (weight / scale.float()).view(len(weight), -1, self.dimensions)[:, order]
        costs = metrics.square().sum(-1) * (scale.float() / scale.float().max()).square().unsqueeze(-1)
        step = -(-scaled.shape[0] * scaled.shape[1] // max(4096, SAMPLE * self.centroids))
        sample = scaled.flatten(0, 1)[::step], costs.flatten(0, 1)[::step].expand(-1, self.dimensions)
        codebook = k_means(*sample, self.centroids).to(torch.bfloat16)
        indices = torch.empty(scaled.shape[:2], dtype=torch.int32)
        indices[:, order] = _compensated(scaled.flatten(1), codebook.float(), factor, metrics)
        return {"indices_packed": pack(indices, self.bits), "codebook": codebook, "row_scale": scale}, {}

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The codebook's vectors at the indices, times the rows' scales."""
        indices = unpack(own["indices_packed"], self.bits, shape[1] // self.dimensions)
        return own["codebook"].float()[indices].view(shape) * own["row_scale"].float()


def k_means(vectors: Tensor, costs: Tensor, clusters: int) -> Tensor:
    """Centroids ``(clusters, dimensions)`` of low cost, the same on every run.

    Args:
        vectors: Shape ``(n, dimensions)``.
        costs: Of each squared difference, at or above 0; the vectors' shape.
        clusters: How many.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    step = max(1, len(vectors) // SEEDS)
    seeds, seed_costs = vectors[::step], costs[::step]
    centroids = seeds[:1]
    nearest = torch.full((len(seeds),), torch.inf)
    for _ in range(clusters - 1):
        nearest = torch.minimum(nearest, (seed_costs * (seeds - centroids[-1]).square()).sum(1))
        drawn = torch.multinomial(nearest, 1, generator=generator) if float(nearest.sum()) > 0 else torch.zeros(1, dtype=torch.int64)
        centroids = torch.cat([centroids, seeds[drawn]])
    weighted = costs * vectors
    features = torch.cat([costs, -2 * weighted], 1)
    for _ in range(ROUNDS):
        table = torch.cat([centroids.square(), centroids], 1).T
        index = torch.cat([(part @ table).argmin(1) for part in features.split(CHUNK)])  # costs that stay in the cache
        mass = torch.zeros_like(centroids).index_add_(0, index, costs)
        total = torch.zeros_like(centroids).index_add_(0, index, weighted)
        moved = torch.where(mass > 0, total / mass.clamp(min=1e-30), centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids


def _inverse_factor(moment: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Runs by falling second moment, and the upper triangular ``U`` with ``U' U`` the inverse of the Hessian in that order."""
    import torch

    mean = float(moment.diagonal().mean())
    moment = (moment + (DAMPING * mean if mean > 0 else 1.0) * torch.eye(len(moment))).double()
    order = moment.diagonal().view(-1, dimensions).sum(1).argsort(descending=True, stable=True)
    columns = (order.unsqueeze(1) * dimensions + torch.arange(dimensions)).flatten()
    return order, factor_of_inverse(moment[columns][:, columns]).float()


def _compensated(scaled: Tensor, codebook: Tensor, factor: Tensor, metrics: Tensor) -> Tensor:
    """Index of each run, ``(rows, runs)``: that of least cost after the errors of the runs before it were passed on."""
    import torch

    scaled, dimensions = scaled.clone(), codebook.shape[1]
    block = BLOCK // dimensions * dimensions
    indices = []
    for first in range(0, scaled.shape[1], block):
        last = min(first + block, scaled.shape[1])
        errors = torch.zeros(len(scaled), last - first)
        for start in range(first, last, dimensions):
            end, metric = start + dimensions, metrics[start // dimensions]
            run, table = scaled[:, start:end], codebook @ metric
            index = (table.square().sum(1) - 2 * (run @ metric) @ table.T).argmin(1)
            errors[:, start - first : end - first] = (run - codebook[index]) @ metric
            scaled[:, end:last] -= errors[:, start - first : end - first] @ factor[start:end, end:last]
            indices.append(index)
        scaled[:, last:] -= errors @ factor[first:last, last:]
    return torch.stack(indices, 1).to(torch.int32)
