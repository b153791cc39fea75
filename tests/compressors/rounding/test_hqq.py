"""Grids fitted with the outliers left aside."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from paredown.compressors.bank.encoding import decode_matrix, encode_matrix
from paredown.space.choice import parse_choice
from paredown.space.layouts import matrix_fault

SHAPE = (32, 128)


def error(algorithm: str, weight: torch.Tensor, bits: int, power: float = 0.7) -> float:
    """Sum of the errors' magnitudes to a power."""
    choice = parse_choice(f"quantize bits={bits} group_size=64 symmetric=false algorithm={algorithm}")
    decoded = decode_matrix(choice, encode_matrix(choice, weight, "float32"), SHAPE)
    return float((decoded - weight).abs().pow(power).sum())


def heavy_tailed(seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) ** 3


@pytest.mark.parametrize(("bits", "share"), [(2, 0.95), (3, 0.97), (4, 0.985), (5, 0.995), (6, 1), (8, 1.000001)])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_the_norm_is_lower(bits: int, share: float, size: float) -> None:
    """The norm that leaves outliers aside beats the range of the largest weights, whatever the unit of the weights."""
    weight = heavy_tailed() * size
    assert error("hqq", weight, bits) < share * error("round-to-nearest", weight, bits)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_outliers_are_left_aside(bits: int) -> None:
    """The least-squares fit is not better in that norm, and is better in squares."""
    weight = heavy_tailed()
    assert error("hqq", weight, bits) < error("search", weight, bits)
    assert error("hqq", weight, bits, power=2) > error("search", weight, bits, power=2)


def test_what_lies_on_a_grid_is_kept() -> None:
    """The grid that spans the weights is among the candidates: where it loses nothing, nothing is lost."""
    weight = (torch.arange(64).remainder(8) - 3).repeat(32, 2) * 0.25
    assert error("hqq", weight.float(), 3) == 0


def test_more_bits_never_hurt_the_norm() -> None:
    """The norm falls from each bit-width to the next."""
    errors = [error("hqq", heavy_tailed(), bits) for bits in (2, 3, 4, 5, 6, 8)]
    assert all(finer < coarser for coarser, finer in pairwise(errors)), errors


def test_symmetric_grids_are_refused() -> None:
    """They have no zero points to fit."""
    assert "use symmetric=false" in str(matrix_fault(parse_choice("quantize bits=4 algorithm=hqq"), SHAPE))
    assert matrix_fault(parse_choice("quantize bits=4 symmetric=false algorithm=hqq"), SHAPE) is None
