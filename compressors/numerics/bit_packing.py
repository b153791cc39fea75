"""Small integers packed densely into int32 words, in the bit order of compressed-tensors' ``pack-quantized`` format."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def packed_columns(columns: int, bits: int) -> int:
    """Number of int32 words that hold a row of ``columns`` codes of ``bits`` bits each."""
    return -(-columns * bits // 32)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes in ``[0, 2**bits)``, shape ``(rows, columns)``, as int32 of shape ``(rows, ceil(columns * bits / 32))``."""
    import torch

    rows, columns = codes.shape
    start = torch.arange(columns) * bits
    word, offset = start // 32, start % 32
    value = codes.to(torch.int64) << offset
    words = torch.zeros(rows, packed_columns(columns, bits) + 1, dtype=torch.int64)
    words.index_add_(1, word, value & 0xFFFFFFFF)
    words.index_add_(1, word + 1, value >> 32)
    words = words[:, :-1]
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32).contiguous()


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """Inverse of `pack`: int32 codes of shape ``(rows, columns)``."""
    import torch

    if 32 % bits == 0:
        shifts = torch.arange(0, 32, bits, dtype=torch.int32)
        codes: Tensor = (words.unsqueeze(-1) >> shifts) & (2**bits - 1)
        return codes.flatten(1)[:, :columns]
    per_block = 32  # codes that fill `bits` words exactly; then the pattern repeats
    blocks = -(-words.shape[1] // bits)
    padded = torch.nn.functional.pad(words, (0, blocks * bits - words.shape[1])).view(len(words), blocks, bits)
    codes = torch.empty(len(words), blocks, per_block, dtype=torch.int32)
    for i in range(per_block):
        word, offset = divmod(i * bits, 32)
        value = padded[..., word] >> offset
        if offset:
            value = value & ((1 << (32 - offset)) - 1)
        if offset + bits > 32:
            value = value | (padded[..., word + 1] << (32 - offset))
        codes[..., i] = value & (2**bits - 1)
    return codes.flatten(1)[:, :columns]
