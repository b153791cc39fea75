"""Cast to a narrower floating-point type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from paredown.space.choice import Choice, MatrixChoice, Part, Shape, methods
from paredown.space.site import Kind, Member
from paredown.space.statistics import NO_STATISTICS, Statistics
from paredown.space.targets.target import Storage
from paredown.space.tensors import ITEM_BYTES, Layout, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor


@methods.register("cast")
class Cast(MatrixChoice):
    """The matrix in bfloat16."""

    method: ClassVar[str] = "cast"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear", "embedding"})

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Default space: only where the original dtype is wider than 16 bits."""
        return (cls(),) if ITEM_BYTES[member.dtype] > 2 else ()

    @property
    def storage(self) -> Storage:
        """A plain matrix."""
        return Storage(method=self.method, form="dense")

    def own(self, shape: Shape, dtype: str) -> Layout:
        """Two bytes per weight."""
        return {"weight": TensorSpec("bfloat16", shape)}

    def encode(
        self, weight: Tensor, statistics: Statistics = NO_STATISTICS
    ) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """The matrix rounded to nearest even."""
        import torch

        return {"weight": weight.to(torch.bfloat16)}, {}

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The bfloat16 values as float32, exact."""
        return own["weight"].float()
