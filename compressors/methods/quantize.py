"""Weight quantization: integer codes with one scale per group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

import paredown.compressors.rounding  # noqa: F401 - registers the algorithms
from paredown.compressors.numerics.bit_packing import pack, packed_columns, unpack
from paredown.compressors.rounding.grid import Grid, roundings
from paredown.space.choice import Choice, MatrixChoice, Part, Shape, methods
from paredown.space.site import Kind, Member, Site
from paredown.space.statistics import NO_STATISTICS, Statistic, Statistics
from paredown.space.targets.target import Storage, Target
from paredown.space.tensors import Layout, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

GroupSize = Annotated[int, Field(ge=1)] | Literal["channel"]

BITS = (2, 3, 4, 5, 6, 8)
"""Bits per code that can be packed."""

CALIBRATED = "gptq"
"""Algorithm of linear layers in the default space.

The input of an embedding is a token id, so its choices are data-free.
"""


@methods.register("quantize")
class Quantize(MatrixChoice):
    """Weights rounded to integers of ``bits``, with a bfloat16 scale per group.

    Four algorithms need no calibration. ``search`` tries a few clipping ranges per group, refines each by least squares
    and keeps the one of least squared error. ``round-to-nearest`` takes the min-max range. ``hqq`` fits scale and zero
    point with a loss that is robust to outliers. ``nf4`` uses the NormalFloat4 levels (storage only).

    Two are calibrated on the layer's inputs. ``gptq`` compensates each column's error in the columns after it.
    ``coordinate-descent`` starts from there and alternates between codes and scales, at about four times the time.

    Symmetric codes are stored in compressed-tensors' ``pack-quantized`` format; each zero point takes one byte.
    """

    method: ClassVar[str] = "quantize"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear", "embedding"})
    without_statistics: ClassVar[Mapping[str, Any] | None] = {"algorithm": "search"}

    bits: int = Field(description="bits per weight: 2, 3, 4, 5, 6 or 8", json_schema_extra={"enum": list(BITS)})
    group_size: GroupSize = Field(default="channel", description="weights along in_features that share a scale")
    symmetric: bool = Field(default=True, description="true: zero is the middle code; false: one zero point per group")
    algorithm: str = Field(default="search", description="rounding algorithm")

    @field_validator("bits")
    @classmethod
    def _packed(cls, value: int) -> int:
        if value not in BITS:
            raise ValueError(f"expected one of {', '.join(map(str, BITS))}, got {value}")
        return value

    @field_validator("algorithm")
    @classmethod
    def _known(cls, value: str) -> str:
        return roundings.checked(value)

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Default space: every bit-width at group 64, and one scale per channel at many bits.

        At many bits, group scales cost more than they gain.
        """
        columns = member.shape[1]
        algorithm = CALIBRATED if kind == "linear" else "search"
        groups: list[GroupSize] = [g for g in (32, 64, 128) if g < columns and columns % g == 0]
        if not groups:
            divisor = max((d for d in range(16, 65) if d < columns and columns % d == 0), default=0)
            groups = [divisor] if divisor else []
        groups = groups or ["channel"]
        middle = 64 if 64 in groups else groups[-1]
        grouped, whole = ((2, 3, 4, 5, 6), (5, 6, 8)) if kind == "linear" else ((2, 3, 4, 5, 6, 8), ())
        wanted = [cls(bits=bits, group_size=middle, algorithm=algorithm) for bits in grouped]
        return list(dict.fromkeys([*wanted, *(cls(bits=bits, algorithm=algorithm) for bits in whole)]))

    def fault(self, shape: Shape) -> str | None:
        """Why a matrix cannot take it: the algorithm rejects the grid, or group_size does not divide in_features."""
        if fault := roundings[self.algorithm].fault(self.grid(shape[1])):
            return fault
        if self.group_size == "channel":
            return None
        columns = shape[1]
        if columns % self.group_size:
            fits = [d for d in range(16, 257) if columns % d == 0]
            return (
                f"group_size {self.group_size} does not divide in_features {columns}; "
                f"use {', '.join(map(str, [*fits, 'channel']))}"
            )
        return None

    def canonical(self, shape: Shape) -> Choice:
        """``group_size="channel"`` if a group spans the whole row."""
        return self.model_copy(update={"group_size": "channel"}) if self.group_size == shape[1] else self

    @property
    def storage(self) -> Storage:
        """Packed codes; smaller on disk only if the algorithm has its own levels, which no kernel computes with."""
        own_levels = roundings[self.algorithm].levels is not None
        return Storage(
            method=self.method,
            form="codes",
            bits=self.bits,
            group_size=self.group_size,
            zero_points=not self.symmetric,
            levels=self.algorithm if own_levels else "",
            storage_only=own_levels,
        )

    def supports(self, site: Site, target: Target) -> str | None:
        """Why a target cannot run it at a site; no target takes calibrated embeddings."""
        if site.kind == "embedding" and "second_moment" in self.uses:
            return (
                f"{self.algorithm} is calibrated on a layer's inputs, and the inputs of {site.name} are token ids; "
                "use algorithm=search"
            )
        return super().supports(site, target)

    def group(self, columns: int) -> int:
        """Weights per scale in rows of this length."""
        return columns if self.group_size == "channel" else self.group_size

    def grid(self, columns: int) -> Grid:
        """The quantization grid for rows of this length."""
        return Grid(bits=self.bits, group=self.group(columns), symmetric=self.symmetric)

    @property
    def uses(self) -> frozenset[Statistic]:
        """Statistics that the algorithm requires."""
        return roundings[self.algorithm].needs

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

    def encode(
        self, weight: Tensor, statistics: Statistics = NO_STATISTICS
    ) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """Codes, scales and zero points from the rounding algorithm."""
        import torch

        rounded = roundings[self.algorithm].round(weight, self.grid(weight.shape[1]), statistics)
        own = {"weight_packed": pack(rounded.codes, self.bits), "weight_scale": rounded.scale.to(torch.bfloat16)}
        if self.symmetric:
            own["weight_shape"] = torch.tensor(weight.shape, dtype=torch.int64)
        else:
            own["weight_zero_point"] = rounded.zero.to(torch.uint8)
        return own, {}

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """``(code - zero) * scale``, or ``level * scale``."""
        import torch

        rows, columns = shape
        codes = unpack(own["weight_packed"], self.bits, columns).view(rows, -1, self.group(columns))
        scale = own["weight_scale"].float().unsqueeze(-1)
        if levels := roundings[self.algorithm].levels:
            return (torch.tensor(levels)[codes] * scale).view(rows, columns)
        zero = 2 ** (self.bits - 1) if self.symmetric else own["weight_zero_point"].unsqueeze(-1)
        return ((codes - zero) * scale).view(rows, columns)
