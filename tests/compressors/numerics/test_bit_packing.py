"""Codes in words."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from hypothesis import given

from paredown.compressors.numerics.bit_packing import pack, packed_columns, unpack
from shared import strategies


@given(strategies.codes())
def test_what_was_packed_is_unpacked(drawn: tuple[torch.Tensor, int]) -> None:
    """Packing loses nothing, and takes the words that were predicted."""
    codes, bits = drawn
    words = pack(codes, bits)
    assert words.shape == (len(codes), packed_columns(codes.shape[1], bits))
    assert words.dtype == torch.int32
    torch.testing.assert_close(unpack(words, bits, codes.shape[1]), codes, rtol=0, atol=0)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("columns", [1, 31, 32, 33, 172])
def test_words_are_those_of_compressed_tensors(bits: int, columns: int) -> None:
    """The file is read by other people's code: their packing is the oracle, both ways."""
    codes = torch.randint(0, 2**bits, (3, columns), generator=torch.Generator().manual_seed(bits), dtype=torch.int32)
    signed = (codes - 2 ** (bits - 1)).to(torch.int8)
    theirs = pack_to_int32(signed, bits)
    torch.testing.assert_close(pack(codes, bits), theirs, rtol=0, atol=0)
    torch.testing.assert_close(unpack_from_int32(pack(codes, bits), bits, codes.shape), signed, rtol=0, atol=0)


def test_the_largest_codes_fill_the_sign_bit() -> None:
    """All ones give words of -1: the word's sign bit is a bit like any other."""
    assert (pack(torch.full((1, 32), 7), 3) == -1).all()
