"""A codebook of values in place of a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from paredown.compressors.packing import pack, packed_columns, unpack
from paredown.space.choice import Choice, Part, Shape, methods
from paredown.space.site import Kind, Member
from paredown.space.statistics import NO_STATISTICS, Statistics
from paredown.space.tensors import Layout, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 30


@methods.register("cluster")
class Cluster(Choice):
    """Weights replaced by the nearest of ``clusters`` values of the matrix, found by k-means, each row with its own scale.

    Source:
        Lloyd, 1982, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28(2). On one dimension
        the clusters are intervals of the sorted weights, so a round costs a search of the borders and no distances.
    """

    method: ClassVar[str] = "cluster"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear", "embedding"})

    clusters: int = Field(ge=2, le=256, description="values in the codebook")

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Codes of 3 and of 4 bits."""
        return (cls(clusters=8), cls(clusters=16)) if kind == "linear" else (cls(clusters=16),)

    @property
    def storage_only(self) -> bool:
        """No kernel looks weights up."""
        return True

    @property
    def bits(self) -> int:
        """Bits of an index."""
        return (self.clusters - 1).bit_length()

    def own(self, shape: Shape, dtype: str) -> Layout:
        """Packed indices, the codebook, and the rows' scales."""
        return {
            "indices_packed": TensorSpec("int32", (shape[0], packed_columns(shape[1], self.bits))),
            "codebook": TensorSpec("float32", (self.clusters,)),
            "row_scale": TensorSpec("bfloat16", (shape[0], 1)),
        }

    def encode(self, weight: Tensor, statistics: Statistics = NO_STATISTICS) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """Lloyd's rounds on the scaled weights, from evenly spaced quantiles."""
        import torch

        scale = weight.square().mean(1, keepdim=True).sqrt().clamp(min=1e-30).to(torch.bfloat16)
        scaled = weight / scale.float()
        values = scaled.flatten().sort().values.double()
        sums = torch.nn.functional.pad(values.cumsum(0), (1, 0))
        spread = torch.linspace(0, len(values) - 1, 2 * self.clusters + 1)[1::2].long()
        centres = values[spread]
        for _ in range(ROUNDS):
            borders = torch.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
            start = torch.nn.functional.pad(borders, (1, 0))
            end = torch.nn.functional.pad(borders, (0, 1), value=len(values))
            count = end - start
            mean = (sums[end] - sums[start]) / count.clamp(min=1)
            moved = torch.where(count > 0, mean, centres)
            if torch.equal(moved, centres):
                break
            centres = moved
        codebook = centres.float()
        indices = torch.bucketize(scaled, (codebook[1:] + codebook[:-1]) / 2)
        return {"indices_packed": pack(indices, self.bits), "codebook": codebook, "row_scale": scale}, {}

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The codebook's values at the indices, times the rows' scales."""
        return own["codebook"][unpack(own["indices_packed"], self.bits, shape[1])] * own["row_scale"].float()
