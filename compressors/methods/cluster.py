"""Scalar codebooks: each weight is one of a few values found by k-means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from paredown.compressors.numerics.bit_packing import pack, packed_columns, unpack
from paredown.compressors.numerics.scalar_codebook import codebook_of
from paredown.space.choice import Choice, MatrixChoice, Part, Shape, methods
from paredown.space.site import Kind, Member
from paredown.space.statistics import NO_STATISTICS, Statistic, Statistics
from paredown.space.targets.target import Storage
from paredown.space.tensors import Layout, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

STATISTICS: dict[str, frozenset[Statistic]] = {
    "none": frozenset(),
    "inputs": frozenset({"second_moment"}),
    "fisher": frozenset({"importance"}),
}
"""Statistics that each weighting requires."""


@methods.register("cluster")
class Cluster(MatrixChoice):
    """Each weight is replaced by the nearest of ``clusters`` k-means values; each row has its own scale.

    ``weighting`` sets the weight of each squared error: 1 (``none``), the mean square of the weight's input
    (``inputs``) or the diagonal of the Fisher information (``fisher``).

    Source:
        Kim et al., 2023, "SqueezeLLM: Dense-and-Sparse Quantization", arXiv 2306.07629, for k-means weighted by the
        Fisher information.
    """

    method: ClassVar[str] = "cluster"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear", "embedding"})
    without_statistics: ClassVar[Mapping[str, Any] | None] = {"weighting": "none"}

    clusters: int = Field(ge=2, le=256, description="values in each codebook")
    rows: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        default="all", description="neighbouring rows that share a codebook"
    )
    weighting: Literal["none", "inputs", "fisher"] = Field(
        default="none", description="weight of each squared error: 1, mean square of the input, or Fisher information"
    )

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Default space: 4-bit codes for embeddings.

        Linear layers have calibration inputs, and vector codebooks lose less there at the same bytes.
        """
        return (cls(clusters=16),) if kind == "embedding" else ()

    def canonical(self, shape: Shape) -> Choice:
        """``rows="all"`` if one codebook serves the whole matrix."""
        return self.model_copy(update={"rows": "all"}) if self.rows != "all" and self.rows >= shape[0] else self

    @property
    def uses(self) -> frozenset[Statistic]:
        """Statistics that the weighting requires."""
        return STATISTICS[self.weighting]

    @property
    def storage(self) -> Storage:
        """Smaller on disk only: no kernel computes with codebooks."""
        return Storage(method=self.method, form="own", storage_only=True)

    @property
    def bits(self) -> int:
        """Bits per index."""
        return (self.clusters - 1).bit_length()

    def codebooks(self, rows: int) -> int:
        """Codebooks for a matrix with this many rows; the last may serve fewer rows than the others."""
        return 1 if self.rows == "all" else -(-rows // self.rows)

    def own(self, shape: Shape, dtype: str) -> Layout:
        """Packed indices, codebooks and row scales."""
        rows, columns = shape
        return {
            "indices_packed": TensorSpec("int32", (rows, packed_columns(columns, self.bits))),
            "codebook": TensorSpec("float32", (self.codebooks(rows), self.clusters)),
            "row_scale": TensorSpec("bfloat16", (rows, 1)),
        }

    def encode(
        self, weight: Tensor, statistics: Statistics = NO_STATISTICS
    ) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """Codebooks, indices and row scales from two rounds of k-means.

        The first round clusters the weights scaled by their row's root mean square. The scales are then refitted by
        least squares, and the second round clusters with those.
        """
        import torch

        importance = self._importance(weight, statistics)
        found = []
        share = len(weight) if self.rows == "all" else self.rows
        for start in range(0, len(weight), share):
            part, weights = weight[start : start + share], importance[start : start + share]
            scale = part.square().mean(1, keepdim=True).sqrt().clamp(min=1e-30).to(torch.bfloat16)
            codebook, indices = self._clustered(part, weights, scale)
            scale = _fitted_scale(part, weights, codebook[indices], scale)
            found.append((*self._clustered(part, weights, scale), scale))
        codebooks, every, scales = zip(*found, strict=True)
        return {
            "indices_packed": pack(torch.cat(every), self.bits),
            "codebook": torch.stack(codebooks),
            "row_scale": torch.cat(scales),
        }, {}

    def _clustered(self, weight: Tensor, importance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        scaled = weight / scale.float()
        codebook = codebook_of(scaled.flatten(), (importance * scale.double().square()).flatten(), self.clusters)
        return codebook, torch.bucketize(scaled, (codebook[1:] + codebook[:-1]) / 2)

    def _importance(self, weight: Tensor, statistics: Statistics) -> Tensor:
        import torch

        if self.weighting == "none":
            return torch.ones_like(weight)
        if self.weighting == "inputs":
            return statistics["second_moment"].diagonal().clamp(min=0).expand(weight.shape)
        return statistics["importance"]

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Codebook values at the indices, times the row scales."""
        import torch

        rows = shape[0] if self.rows == "all" else self.rows
        indices = (
            unpack(own["indices_packed"], self.bits, shape[1])
            + (torch.arange(shape[0]) // rows * self.clusters)[:, None]
        )
        return own["codebook"].flatten()[indices] * own["row_scale"].float()


def _fitted_scale(weight: Tensor, importance: Tensor, values: Tensor, scale: Tensor) -> Tensor:
    """The least-squares scale of each row, rounded to bfloat16; the given one where the fit is not positive."""
    import torch

    power = (importance * values.square()).sum(1, keepdim=True)
    fitted = (importance * values * weight).sum(1, keepdim=True) / power.clamp(min=1e-30)
    return torch.where((power > 0) & (fitted > 1e-30), fitted, scale.float()).to(torch.bfloat16)
