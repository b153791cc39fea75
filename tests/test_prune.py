"""Unstructured pruning."""

from __future__ import annotations

import pytest
import strategies
import torch
from hypothesis import given

from paredown.compressors.storage import decode_matrix, encode_matrix
from paredown.space.choice import PlanError, parse_choice


@given(strategies.matrices())
def test_the_largest_of_each_row_stay(weight: torch.Tensor) -> None:
    """What stays is unchanged and in its place; nothing that went is larger than anything that stayed."""
    choice = parse_choice("prune sparsity=0.6")
    shape = (weight.shape[0], weight.shape[1])
    stored = encode_matrix(choice, weight, "float32")
    decoded = decode_matrix(choice, stored, shape)
    kept = max(1, round(shape[1] * 0.4))
    assert stored["values"].shape == (shape[0], kept)
    expected = torch.zeros(shape)
    for row in range(shape[0]):
        magnitudes = sorted(weight[row].abs().tolist(), reverse=True)
        assert sorted(decoded[row].abs().tolist(), reverse=True)[:kept] == magnitudes[:kept]
        expected[row] = torch.where(decoded[row] != 0, weight[row], 0)
    assert torch.equal(decoded, expected)


@pytest.mark.parametrize("sparsity", ["0", "1", "-0.5", "nan"])
def test_a_sparsity_outside_the_open_interval_is_refused(sparsity: str) -> None:
    """Nothing and all are no pruning."""
    with pytest.raises(PlanError, match="prune: sparsity"):
        parse_choice(f"prune sparsity={sparsity}")
