"""Uniform quantization of weights: integer codes on one grid per group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from paredown.compressors.packing import pack, packed_columns, unpack
from paredown.space.choice import Choice, Shape, methods
from paredown.space.site import Kind, Member, Site
from paredown.space.target import Target
from paredown.space.tensors import Layout, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

GroupSize = int | Literal["channel"]

SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.74, 0.68, 0.6, 0.52, 0.44)
"""Candidate ranges of a grid, as shares of the group's largest weight."""


@methods.register("quantize")
class Quantize(Choice):
    """Weights rounded to integers of ``bits``, with a bfloat16 scale per group.

    ``search`` fits each group's scale to its weights: the best of a few ranges by squared error, then the least-squares
    scale of those codes, and the codes of that scale. ``round-to-nearest`` takes the range of the largest weight.
    Symmetric codes are stored as compressed-tensors' ``pack-quantized`` format does; zero points take a byte each.
    """

    method: ClassVar[str] = "quantize"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear", "embedding"})

    bits: int = Field(description="2, 3, 4, 5, 6 or 8")
    group_size: GroupSize = Field(default="channel", description="weights along in_features that share a scale")
    symmetric: bool = Field(default=True, description="whether zero is the middle of the grid")
    algorithm: Literal["search", "round-to-nearest"] = Field(default="search", description="how the scale is fitted")

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Every bit-width at group 64; finer groups and zero points where bits are few; channels where they are many."""
        columns = member.shape[1]
        groups: list[GroupSize] = [g for g in (32, 64, 128) if g < columns and columns % g == 0]
        if not groups:
            divisor = max((d for d in range(16, 65) if d < columns and columns % d == 0), default=0)
            groups = [divisor] if divisor else []
        groups = groups or ["channel"]
        middle = 64 if 64 in groups else groups[-1]
        wanted: list[Choice] = [cls(bits=bits, group_size=middle) for bits in (2, 3, 4, 5, 6, 8)]
        if kind == "linear":
            finest = groups[0]
            wanted += [cls(bits=2, group_size=finest, symmetric=False), cls(bits=3, group_size=finest, symmetric=False)]
            wanted += [cls(bits=4), cls(bits=8)]
        return list(dict.fromkeys(wanted))

    def fault(self, shape: Shape) -> str | None:
        """Bits that no packing holds, or a group size that does not divide in_features."""
        if self.bits not in (2, 3, 4, 5, 6, 8):
            return f"bits {self.bits} is not one of 2, 3, 4, 5, 6, 8"
        if self.group_size == "channel":
            return None
        columns = shape[1]
        if self.group_size < 1 or columns % self.group_size:
            fits = [d for d in range(16, 257) if columns % d == 0]
            return f"group_size {self.group_size} does not divide in_features {columns}; use {', '.join(map(str, [*fits, 'channel']))}"
        return None

    def canonical(self, shape: Shape) -> Choice:
        """A group as long as the row is the channel."""
        return self.model_copy(update={"group_size": "channel"}) if self.group_size == shape[1] else self

    def supports(self, site: Site, target: Target) -> str | None:
        """In transformers: symmetric codes of linear layers that nothing is tied to."""
        if target.name == "paredown":
            return None
        if not self.symmetric:
            return "transformers does not load packed zero points; use symmetric=true or target paredown"
        for member in site.members:
            if member.class_name != "Linear":
                return f"transformers loads no quantized {member.class_name}; keep {member.module} or use target paredown"
            if member.tied:
                return f"transformers loads no quantized weight that is tied ({member.module}); keep it or use target paredown"
        return None

    def group(self, columns: int) -> int:
        """Weights per scale in a row of this many."""
        return columns if self.group_size == "channel" else self.group_size

    def own(self, shape: Shape, dtype: str) -> Layout:
        """Packed codes, scales, and the shape (symmetric) or the zero points (asymmetric)."""
        rows, columns = shape
        groups = columns // self.group(columns)
        layout = {
            "weight_packed": TensorSpec("int32", (rows, packed_columns(columns, self.bits))),
            "weight_scale": TensorSpec("bfloat16", (rows, groups)),
        }
        if self.symmetric:
            return layout | {"weight_shape": TensorSpec("int64", (2,))}
        return layout | {"weight_zero_point": TensorSpec("uint8", (rows, groups))}

    def encode(self, weight: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Codes and scales of least squared error among the candidate grids."""
        import torch

        rows, columns = weight.shape
        grouped = weight.view(rows, -1, self.group(columns))
        best: tuple[Tensor, Tensor, Tensor] | None = None
        best_error: Tensor | None = None
        for scale, zero in self._grids(grouped):
            codes, error = self._round(grouped, scale, zero)
            if self.algorithm == "search":
                scale = _least_squares_scale(grouped, codes - zero, scale)
                codes, error = self._round(grouped, scale, zero)
            if best is None or best_error is None:
                best, best_error = (codes, scale, zero), error
            else:
                better = error < best_error
                best = (torch.where(better, codes, best[0]), torch.where(better, scale, best[1]), torch.where(better, zero, best[2]))
                best_error = torch.minimum(error, best_error)
        assert best is not None
        codes, scale, zero = best
        own = {"weight_packed": pack(codes.view(rows, columns), self.bits), "weight_scale": scale.squeeze(-1).to(torch.bfloat16)}
        if self.symmetric:
            own["weight_shape"] = torch.tensor(weight.shape, dtype=torch.int64)
        else:
            own["weight_zero_point"] = zero.squeeze(-1).to(torch.uint8)
        return own, {}

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """``(code - zero) * scale``."""
        rows, columns = shape
        codes = unpack(own["weight_packed"], self.bits, columns).view(rows, -1, self.group(columns))
        zero = 2 ** (self.bits - 1) if self.symmetric else own["weight_zero_point"].unsqueeze(-1)
        return ((codes - zero) * own["weight_scale"].float().unsqueeze(-1)).view(rows, columns)

    def _grids(self, grouped: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Candidate scales (rounded to what is stored) and zero points, each of shape ``(rows, groups, 1)``."""
        import torch

        top = 2**self.bits - 1
        half = 2 ** (self.bits - 1)
        low = grouped.amin(-1, keepdim=True).clamp(max=0)
        high = grouped.amax(-1, keepdim=True).clamp(min=0)
        shrinks = SHRINK if self.algorithm == "search" else (1.0,)
        if self.symmetric:
            reach = torch.maximum(-low, high)
            # The grid has one step more below zero: a negative scale puts it on the side of the largest weight.
            sign = torch.where(high > -low, -1.0, 1.0) if self.algorithm == "search" else torch.ones_like(reach)
            for shrink in shrinks:
                yield _stored(sign * reach * shrink / (half if self.algorithm == "search" else half - 0.5)), torch.full_like(reach, half)
        else:
            for shrink in shrinks:
                scale = _stored((high - low) * shrink / top)
                yield scale, (-low * shrink / scale).round().clamp(0, top)

    def _round(self, grouped: Tensor, scale: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
        codes = (grouped / scale + zero).round().clamp(0, 2**self.bits - 1)
        return codes, ((codes - zero) * scale - grouped).square().sum(-1, keepdim=True)


def _stored(scale: Tensor) -> Tensor:
    """A scale as bfloat16 holds it, never zero."""
    import torch

    scale = torch.where(scale.abs() < 1e-30, torch.full_like(scale, 1e-30), scale)
    return scale.to(torch.bfloat16).float()


def _least_squares_scale(grouped: Tensor, steps: Tensor, scale: Tensor) -> Tensor:
    """The scale that fits the weights best with these steps of the grid; the given one where all steps are zero."""
    import torch

    power = steps.square().sum(-1, keepdim=True)
    fitted = (grouped * steps).sum(-1, keepdim=True) / power.clamp(min=1)
    return _stored(torch.where((power > 0) & (fitted != 0), fitted, scale))
