"""Low-rank factors in place of a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from paredown.space.choice import Choice, Part, Shape, methods
from paredown.space.site import Kind, Member
from paredown.space.statistics import NO_STATISTICS, Statistics

if TYPE_CHECKING:
    from torch import Tensor


@methods.register("lowrank")
class LowRank(Choice):
    """The best approximation of a given rank, as two factors that share the singular values evenly.

    Source:
        Eckart & Young, 1936, "The approximation of one matrix by another of lower rank", Psychometrika 1(3).
    """

    method: ClassVar[str] = "lowrank"

    rank: int = Field(ge=1, description="inner size of the two factors")

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """A third of full rank with factors of 8 bits."""
        rank = min(member.shape) // 3 // 32 * 32
        then = {"method": "quantize", "bits": 8, "group_size": "channel"}
        return (cls.build({"rank": rank, "then": then}),) if kind == "linear" and rank else ()

    def fault(self, shape: Shape) -> str | None:
        """A rank above that of the matrix."""
        return f"rank {self.rank} is above the full rank {min(shape)} of {shape}" if self.rank > min(shape) else None

    def parts(self, shape: Shape) -> Mapping[str, Shape]:
        """``left @ right`` is the matrix."""
        return {"left": (shape[0], self.rank), "right": (self.rank, shape[1])}

    def encode(self, weight: Tensor, statistics: Statistics = NO_STATISTICS) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """The leading singular triplets, each factor scaled by the square roots of the singular values."""
        import torch

        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        root = values[: self.rank].sqrt()
        return {}, {
            "left": Part(matrix=left[:, : self.rank] * root),
            "right": Part(matrix=root[:, None] * right[: self.rank], statistics=statistics),
        }

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The product of the factors."""
        return parts["left"].float() @ parts["right"].float()
