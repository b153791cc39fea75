"""Layers that run compressed matrices: torch's integer CPU kernels, two factors, a sum of two paths, or dense."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn

from paredown.compressors.bank.encoding import decode_matrix
from paredown.compressors.methods.lowrank import Factored, LowRank
from paredown.compressors.methods.lowrank_residual import FACTORS, LowRankResidual
from paredown.compressors.methods.quantize import Quantize
from paredown.compressors.numerics.bit_packing import unpack
from paredown.space.choice import KEEP, Choice, Shape

FEW_ROWS = 64
"""Largest number of activation rows for which the integer kernels are used [rows].

Above it, each call dequantizes the matrix."""

INT4_GROUPS = (32, 64, 128, 256)
"""Group sizes that run in the int4 kernel [columns]."""


class Int4Linear(nn.Module):
    """A linear layer with 4 bits per weight in memory: ``weight = (code - 8) * scale + offset``.

    Args:
        codes: Values in ``[0, 16)``, shape ``(out_features, in_features)``; ``out_features`` is a multiple of 16.
        scale: Shape ``(out_features, groups)``.
        offset: Same shape as ``scale``.
        bias: Shape ``(out_features,)``, or None.
    """

    packed: Tensor
    grid: Tensor
    bias: Tensor | None

    def __init__(self, codes: Tensor, scale: Tensor, offset: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = codes.shape
        self.group_size = codes.shape[1] // scale.shape[1]
        # The layout depends on the CPU, so packing happens here, at load, and is never stored.
        self.register_buffer("packed", _pack_int4(codes))
        self.register_buffer("grid", torch.stack([scale, offset], -1).transpose(0, 1).to(torch.bfloat16).contiguous())
        self.register_buffer("bias", bias if bias is None else bias.to(torch.bfloat16))
        self._has_offset = bool(offset.any())
        self._unpacks = torch.equal(_unpack_int4(self.packed, codes.shape[0], codes.shape[1]), codes.to(torch.uint8))

    def dequantize(self) -> Tensor:
        """The weight in bfloat16, shape ``(out_features, in_features)``."""
        steps = (_unpack_int4(self.packed, self.out_features, self.in_features).view(torch.int8) - 8).to(torch.bfloat16)
        scale, offset = self.grid.transpose(0, 1).unsqueeze(-2).unbind(-1)
        weight = steps.view(self.out_features, -1, self.group_size) * scale
        if self._has_offset:
            weight += offset
        return weight.view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """``x @ weight.T + bias``."""
        rows = x.reshape(-1, self.in_features)
        if len(rows) > FEW_ROWS and self._unpacks:
            return nn.functional.linear(x, self.dequantize(), self.bias)
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows.contiguous(), self.packed, self.group_size, self.grid
        )
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], self.out_features)


class Int8Linear(nn.Module):
    """A linear layer with one byte per weight in memory and one scale per output.

    Args:
        steps: int8, shape ``(out_features, in_features)``; ``in_features`` is a multiple of 16.
        scale: Shape ``(out_features,)``.
        bias: Shape ``(out_features,)``, or None.
    """

    steps: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, steps: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = steps.shape
        self.register_buffer("steps", steps.contiguous())
        self.register_buffer("scale", scale.to(torch.bfloat16).contiguous())
        self.register_buffer("bias", bias if bias is None else bias.to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        """``x @ weight.T + bias``."""
        rows = x.reshape(-1, self.in_features)
        if len(rows) > FEW_ROWS:
            return nn.functional.linear(x, self.steps.to(torch.bfloat16) * self.scale.unsqueeze(1), self.bias)
        y: Tensor = torch.ops.aten._weight_int8pack_mm(rows.contiguous(), self.steps, self.scale)
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], self.out_features)


class Sum(nn.Module):
    """The sum of two layers that read the same inputs."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        """``first(x) + second(x)``."""
        y: Tensor = self.first(x) + self.second(x)
        return y


def kernel_of(choice: Choice, shape: Shape, dtype: torch.dtype = torch.bfloat16) -> str:
    """Name of the kernel that a matrix runs in: ``int4``, ``int8``, ``dense``, or a composite.

    A composite lists its parts, which may be composites themselves: ``lowrank-RANK-RIGHT-LEFT`` and
    ``residual-RANK-RIGHT-LEFT-REST``.
    """
    if dtype != torch.bfloat16:
        return "dense"
    if isinstance(choice, LowRank):
        return f"lowrank-{_factor_kernels(choice, choice.then or KEEP, shape)}"
    if isinstance(choice, LowRankResidual):
        rest = kernel_of(choice.then or KEEP, shape)
        factors = _factor_kernels(choice, FACTORS[choice.factor_bits], shape)
        return "dense" if rest == "dense" else f"residual-{factors}-{rest}"
    if not isinstance(choice, Quantize) or choice.storage.storage_only:
        return "dense"
    rows, columns = shape
    group = choice.group(columns)
    if choice.bits <= 4 and group in INT4_GROUPS and rows % 16 == 0:
        return "int4"
    # The int8 kernel reads past the end of a row whose length is not a multiple of 16: garbage, or a crash.
    return "int8" if choice.symmetric and choice.bits > 4 and group == columns and columns % 16 == 0 else "dense"


def runnable(
    choice: Choice, tensors: Mapping[str, Tensor], shape: Shape, bias: Tensor | None, dtype: torch.dtype
) -> nn.Module:
    """The layer that computes with a stored matrix.

    Args:
        choice: How the matrix is stored.
        tensors: Stored tensors, named as `encode_matrix` names them; not modified.
        shape: ``(out_features, in_features)``.
        bias: Shape ``(out_features,)``, or None.
        dtype: Dtype of the activations: bfloat16 uses the integer kernels, float32 computes exactly with the decoded
            matrix.
    """
    kernel = kernel_of(choice, shape, dtype)
    if kernel in ("int4", "int8"):
        assert isinstance(choice, Quantize)
        return _integer(kernel, choice, tensors, shape, bias)
    if kernel.startswith("lowrank"):
        assert isinstance(choice, LowRank)
        return _factors(choice, choice.then or KEEP, tensors, shape, bias)
    if kernel.startswith("residual"):
        assert isinstance(choice, LowRankResidual)
        rest = runnable(choice.then or KEEP, _part(tensors, "residual", False), shape, bias, dtype)
        return Sum(_factors(choice, FACTORS[choice.factor_bits], tensors, shape, None), rest)
    with torch.device("meta"):
        layer = nn.Linear(shape[1], shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(decode_matrix(choice, tensors, shape).to(dtype), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return layer


def _factor_kernels(choice: Factored, then: Choice, shape: Shape) -> str:
    parts = choice.factor_shapes(shape)
    return f"{choice.rank_of(shape)}-{kernel_of(then, parts['right'])}-{kernel_of(then, parts['left'])}"


def _factors(
    choice: Factored, then: Choice, tensors: Mapping[str, Tensor], shape: Shape, bias: Tensor | None
) -> nn.Module:
    layers = []
    for name, part_bias in (("right", None), ("left", bias)):
        stored = _part(tensors, name, then == KEEP)
        layers.append(runnable(then, stored, choice.factor_shapes(shape)[name], part_bias, torch.bfloat16))
    return nn.Sequential(*layers)


def _part(tensors: Mapping[str, Tensor], name: str, dense: bool) -> dict[str, Tensor]:
    if dense:
        return {"weight": tensors[name]}
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _integer(
    kernel: str, choice: Quantize, tensors: Mapping[str, Tensor], shape: Shape, bias: Tensor | None
) -> nn.Module:
    codes = unpack(tensors["weight_packed"], choice.bits, shape[1])
    scale = tensors["weight_scale"].float()
    half = 2 ** (choice.bits - 1)
    if kernel == "int8":
        return Int8Linear((codes - half).to(torch.int8), scale.flatten(), bias)
    if choice.symmetric:
        return Int4Linear(codes + (8 - half), scale, torch.zeros_like(scale), bias)
    zero = tensors["weight_zero_point"].float()
    if choice.bits < 4:  # code - zero lies in [-7, 7]: the kernel's own zero covers it, and no offset is rounded
        steps = codes.view(shape[0], scale.shape[1], -1) - zero.int().unsqueeze(-1)
        return Int4Linear((steps + 8).view(shape), scale, torch.zeros_like(scale), bias)
    return Int4Linear(codes, scale, (8 - zero) * scale, bias)


def _pack_int4(codes: Tensor) -> Tensor:
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32).contiguous(), 1)
    return packed


def _unpack_int4(packed: Tensor, rows: int, columns: int) -> Tensor:
    """Inverse of `_pack_int4`, which packs blocks of rows; within a block, column by column."""
    block = _block_rows()
    full = rows // block * block
    flat, cut = packed.flatten(), full * columns // 2
    pieces = [(flat[:cut], block)] if full else []
    pieces += [(flat[cut:], rows - full)] if rows > full else []
    found = []
    for piece, size in pieces:
        pairs = piece.view(-1, columns, size // 2)
        pairs = pairs.transpose(1, 2).contiguous()
        codes = torch.cat([pairs & 15, pairs >> 4], dim=1)
        order = _row_order(size).argsort()
        if not torch.equal(order, torch.arange(size)):
            codes = codes.index_select(1, order)
        found.append(codes.view(-1, columns))
    return found[0] if len(found) == 1 else torch.cat(found)


@cache
def _row_order(rows: int) -> Tensor:
    """Order in which this CPU's packing holds the rows of a block; rows in the low half-bytes come first."""
    ids = torch.arange(rows)
    order = torch.zeros(rows, dtype=torch.int64)
    for digit in range(0, rows.bit_length(), 4):
        pairs = _pack_int4(((ids >> digit) & 15).unsqueeze(1).expand(-1, 2)).flatten()[: rows // 2]
        order += torch.cat([pairs & 15, pairs >> 4]).long() << digit
    return order


@cache
def _block_rows() -> int:
    """Number of rows that this CPU's packing keeps together."""
    return next((rows for rows in (128, 64, 32) if torch.equal(_row_order(rows).sort().values, torch.arange(rows))), 16)
