"""Vector quantization: a codebook of short vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from paredown.compressors.numerics.bit_packing import pack, packed_columns, unpack
from paredown.compressors.numerics.coordinate_descent import swept
from paredown.compressors.numerics.hessian import BLOCK, cholesky_of_inverse, hessian
from paredown.compressors.numerics.vector_codebook import fitted_codebook, k_means, least
from paredown.space.choice import Choice, MatrixChoice, Part, Shape, methods
from paredown.space.site import Kind, Member
from paredown.space.statistics import NO_STATISTICS, Statistic, Statistics
from paredown.space.targets.target import Storage
from paredown.space.tensors import Layout, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 128
"""Vectors per centroid that k-means is fitted to, sampled evenly from the matrix; about 8192 in all at the least.

All vectors are then coded with the centroids found.
"""

ROUNDS = 3
"""Rounds that refit codebook and scales to the indices and then choose all indices again."""


@methods.register("vector-quantize")
class VectorQuantize(MatrixChoice):
    """Each run of neighbouring weights in a row becomes one of ``centroids`` vectors; each row has its own scale.

    The codebook is found by k-means, weighted by the cost of an error in the outputs. Runs are then coded from the one
    with the largest inputs to the smallest, and each compensates for the errors of those before it. Codebook, scales
    and indices are then improved in turn; the output error, with a damped Hessian, never grows.

    Source:
        van Baalen et al., 2024, "GPTVQ: The Blessing of Dimensionality for LLM Quantization", arXiv 2402.15319, up to
        the update of the codebook, without its compression of codebooks. Behdin et al., 2023, "QuantEase:
        Optimization-based Quantization for Language Models", arXiv 2309.01885, for cyclic coordinate descent, there
        over the codes of a grid.
    """

    method: ClassVar[str] = "vector-quantize"

    dimensions: int = Field(default=2, ge=2, le=8, description="neighbouring weights that share an index")
    centroids: int = Field(ge=2, le=256, description="vectors in the codebook")

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Default space: 2 to 4 bits per weight, in pairs."""
        return (
            [cls(centroids=count) for count in (16, 32, 64, 128, 256)]
            if kind == "linear" and member.shape[1] % 2 == 0
            else ()
        )

    @property
    def uses(self) -> frozenset[Statistic]:
        """The second moment, which gives the cost of each error."""
        return frozenset({"second_moment"})

    @property
    def storage(self) -> Storage:
        """Smaller on disk only: no kernel computes with codebooks."""
        return Storage(method=self.method, form="own", storage_only=True)

    @property
    def bits(self) -> int:
        """Bits per index."""
        return (self.centroids - 1).bit_length()

    def fault(self, shape: Shape) -> str | None:
        """Why a matrix cannot take it: ``dimensions`` does not divide its rows."""
        if shape[1] % self.dimensions == 0:
            return None
        fits = [str(d) for d in range(2, 9) if shape[1] % d == 0]
        return (
            f"dimensions {self.dimensions} does not divide in_features {shape[1]}; "
            f"use {', '.join(fits) or 'another method'}"
        )

    def own(self, shape: Shape, dtype: str) -> Layout:
        """Packed indices, the codebook and the row scales."""
        return {
            "indices_packed": TensorSpec("int32", (shape[0], packed_columns(shape[1] // self.dimensions, self.bits))),
            "codebook": TensorSpec("bfloat16", (self.centroids, self.dimensions)),
            "row_scale": TensorSpec("bfloat16", (shape[0], 1)),
        }

    def encode(
        self, weight: Tensor, statistics: Statistics = NO_STATISTICS
    ) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """Indices, codebook and scales: k-means and one compensated pass, then rounds of joint refinement."""
        import torch

        curvature = hessian(statistics["second_moment"])
        order = curvature.diagonal().view(-1, self.dimensions).sum(1).argsort(descending=True, stable=True)
        columns = (order.unsqueeze(1) * self.dimensions + torch.arange(self.dimensions)).flatten()
        weight, curvature = weight[:, columns], curvature[columns][:, columns]
        scale = weight.square().mean(1, keepdim=True).sqrt().clamp(min=1e-30).to(torch.bfloat16).float()
        codebook, indices = self._start(weight / scale, scale, curvature)
        for _ in range(ROUNDS):
            codebook = fitted_codebook(weight, indices, codebook, scale, curvature)
            scale = fitted_scale(
                weight, codebook.index_select(0, indices.flatten()).view(weight.shape), scale, curvature
            )
            indices = swept_indices(weight / scale, indices, codebook, curvature)
        own = {
            "indices_packed": pack(indices[:, order.argsort()].to(torch.int32), self.bits),
            "codebook": codebook.to(torch.bfloat16),
            "row_scale": scale.to(torch.bfloat16),
        }
        return own, {}

    def _start(self, scaled: Tensor, scale: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
        """Codebook by k-means on a sample of the runs, and indices from one pass that passes errors on."""
        import torch

        factor = cholesky_of_inverse(curvature.double()).float()
        runs = len(factor) // self.dimensions
        corners = factor.view(runs, self.dimensions, runs, self.dimensions).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        metrics = torch.linalg.inv(corners)
        costs = metrics.square().sum(-1) * (scale / scale.max()).square().unsqueeze(-1)
        step = -(-len(scaled) * runs // max(8192, SAMPLE * self.centroids))
        sample = scaled.view(-1, self.dimensions)[::step], costs.flatten(0, 1)[::step].expand(-1, self.dimensions)
        codebook = k_means(*sample, self.centroids).to(torch.bfloat16).float()
        return codebook, _compensated(scaled, codebook, factor, metrics)

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The codebook vectors at the indices, times the row scales."""
        indices = unpack(own["indices_packed"], self.bits, shape[1] // self.dimensions)
        return own["codebook"].float()[indices].view(shape) * own["row_scale"].float()


def fitted_scale(weight: Tensor, kept: Tensor, scale: Tensor, curvature: Tensor) -> Tensor:
    """The least-squares row scales, rounded to bfloat16; a row whose output error would not fall keeps its own.

    Args:
        weight: Shape ``(rows, columns)``; not modified.
        kept: Codebook vectors of each row, before scaling; same shape.
        scale: Shape ``(rows, 1)``.
        curvature: H of the output error ``trace(E H E')``, shape ``(columns, columns)``.
    """
    import torch

    felt = kept @ curvature
    wanted, power = (weight * felt).sum(1, keepdim=True), (kept * felt).sum(1, keepdim=True)
    fitted = (wanted / power.clamp(min=1e-30)).to(torch.bfloat16).float()
    gains = fitted * (fitted * power - 2 * wanted) < scale * (scale * power - 2 * wanted)
    return torch.where(gains & (fitted > 0), fitted, scale)


def swept_indices(scaled: Tensor, indices: Tensor, codebook: Tensor, curvature: Tensor) -> Tensor:
    """Indices ``(rows, runs)`` after one sweep of coordinate descent.

    Args:
        scaled: The matrix divided by its row scales, shape ``(rows, columns)``; not modified.
        indices: Shape ``(rows, runs)``; not modified.
        codebook: Shape ``(centroids, dimensions)``.
        curvature: H of the output error ``trace(E H E')``, shape ``(columns, columns)``.
    """
    import torch

    dimensions = codebook.shape[1]
    runs = len(curvature) // dimensions
    blocks = curvature.view(runs, dimensions, runs, dimensions).diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()
    powers = ((codebook @ blocks) * codebook).sum(-1)
    found = indices.T.contiguous()

    def choose(first: int, values: Tensor, slopes: Tensor) -> Tensor:
        run = first // dimensions
        pulls = (slopes + blocks[run] @ values).T
        found[run] = least(torch.addmm(powers[run], pulls, codebook.T, alpha=-2))
        return codebook.index_select(0, found[run]).T

    kept = (
        codebook.index_select(0, found.flatten())
        .view(runs, len(scaled), dimensions)
        .transpose(1, 2)
        .reshape(len(curvature), -1)
    )
    swept(scaled.T.contiguous(), kept, curvature, dimensions, choose)
    return found.T.contiguous()


def _compensated(scaled: Tensor, codebook: Tensor, factor: Tensor, metrics: Tensor) -> Tensor:
    """Index of each run, ``(rows, runs)``: the one of least cost after the errors of earlier runs were passed on."""
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
            index = least(torch.addmm(table.square().sum(1), run @ metric, table.T, alpha=-2))
            errors[:, start - first : end - first] = (run - codebook[index]) @ metric
            scaled[:, end:last] -= errors[:, start - first : end - first] @ factor[start:end, end:last]
            indices.append(index)
        scaled[:, last:] -= errors @ factor[first:last, last:]
    return torch.stack(indices, 1)
