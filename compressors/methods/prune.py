"""Unstructured pruning: the smallest weights of each row go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from paredown.space.choice import Choice, Part, Shape, methods
from paredown.space.site import Kind, Member
from paredown.space.statistics import NO_STATISTICS, Statistics
from paredown.space.tensors import Layout, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor


@methods.register("prune")
class Prune(Choice):
    """The weights of largest magnitude, equally many in each row, with a bitmap of where they were."""

    method: ClassVar[str] = "prune"

    sparsity: float = Field(gt=0, lt=1, description="share of the weights that go")

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Half of the weights, the rest in 4 bits."""
        return (cls.build({"sparsity": 0.5, "then": {"method": "quantize", "bits": 4}}),) if kind == "linear" else ()

    @property
    def storage_only(self) -> bool:
        """Zeros take their time like other numbers."""
        return True

    def kept(self, columns: int) -> int:
        """Weights that are left of a row."""
        return max(1, round(columns * (1 - self.sparsity)))

    def own(self, shape: Shape, dtype: str) -> Layout:
        """A bit per weight, rows padded to bytes."""
        return {"bitmap": TensorSpec("uint8", (shape[0], -(-shape[1] // 8)))}

    def parts(self, shape: Shape) -> Mapping[str, Shape]:
        """The values that are left, row by row."""
        return {"values": (shape[0], self.kept(shape[1]))}

    def encode(self, weight: Tensor, statistics: Statistics = NO_STATISTICS) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """The largest magnitudes of each row, in the order of the columns."""
        import torch

        rows, columns = weight.shape
        index = weight.abs().topk(self.kept(columns), dim=1).indices.sort(dim=1).values
        mask = torch.zeros(rows, -(-columns // 8) * 8, dtype=torch.uint8).scatter_(1, index, 1)
        powers = 2 ** torch.arange(8, dtype=torch.uint8)
        bitmap = (mask.view(rows, -1, 8) * powers).sum(-1, dtype=torch.uint8)
        return {"bitmap": bitmap}, {"values": Part(matrix=weight.gather(1, index))}

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The values at their places, zeros elsewhere."""
        import torch

        mask = (own["bitmap"].unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8)) & 1
        mask = mask.flatten(1)[:, : shape[1]].bool()
        return torch.zeros(shape).masked_scatter_(mask, parts["values"].float())
