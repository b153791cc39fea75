"""Factors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paredown.compressors.storage import decode_matrix, encode_matrix
from paredown.space.choice import matrix_fault, parse_choice


@pytest.mark.parametrize("shape", [(24, 172), (172, 24), (1, 172), (16, 16)])
def test_the_error_is_the_singular_values_left_out(shape: tuple[int, int]) -> None:
    """Eckart and Young: no matrix of that rank is nearer. The oracle is numpy's in float64."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.from_numpy(np.linalg.svd(weight.double().numpy(), compute_uv=False))
    for rank in sorted({1, (min(shape) + 1) // 2, min(shape)}):
        choice = parse_choice(f"lowrank rank={rank}")
        decoded = decode_matrix(choice, encode_matrix(choice, weight, "float32"), shape)
        error = (decoded - weight).double().square().sum()
        torch.testing.assert_close(error, values[rank:].square().sum(), rtol=1e-4, atol=1e-6)
        assert torch.linalg.matrix_rank(decoded) <= rank


def test_a_rank_above_the_full_one_is_refused() -> None:
    """It would cost more than it saves."""
    assert "above the full rank 8" in str(matrix_fault(parse_choice("lowrank rank=9"), (8, 172)))
