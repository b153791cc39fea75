"""Values rounded to the nearest half of a row's mean magnitude, one byte each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from paredown.space.choice import Choice, MatrixChoice, Part, Shape
from paredown.space.site import Kind, Member
from paredown.space.statistics import NO_STATISTICS, Statistics
from paredown.space.tensors import Layout, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

PROCESSES = os.environ.get("PAREDOWN_SAMPLE_PROCESSES")
"""File to which each process that compresses a matrix adds its number; for the test."""


class HalfStep(MatrixChoice):
    """Signed bytes times half of the mean magnitude of the row."""

    method: ClassVar[str] = "half-step"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear", "embedding"})

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """One choice for every matrix."""
        return (cls(),)

    def own(self, shape: Shape, dtype: str) -> Layout:
        """Steps and their width."""
        return {"steps": TensorSpec("int8", shape), "width": TensorSpec("float32", (shape[0],))}

    def encode(
        self, weight: Tensor, statistics: Statistics = NO_STATISTICS
    ) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """The nearest steps."""
        import torch

        if PROCESSES:
            with Path(PROCESSES).open("a") as file:
                file.write(f"{os.getpid()}\n")
        width = weight.abs().mean(1) / 2
        return {"steps": (weight / width[:, None]).round().clamp(-127, 127).to(torch.int8), "width": width}, {}

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Steps times their width."""
        return own["steps"].float() * own["width"][:, None]
