"""Codebooks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from paredown.compressors.storage import decode_matrix, encode_matrix
from paredown.space.choice import parse_choice


@pytest.mark.parametrize("clusters", [2, 3, 7, 16, 31])
@pytest.mark.parametrize("power", [1, 3])
def test_k_means_is_as_good_as_scikit_learns(clusters: int, power: int) -> None:
    """From the same quantiles, the squared error of one row is at most 1.02 of scikit-learn's."""
    weight = torch.randn(1, 600, generator=torch.Generator().manual_seed(clusters)) ** power
    scale = weight.square().mean().sqrt().to(torch.bfloat16).float()
    weight = weight / scale  # the scale of the row is 1 within bfloat16, so that the two errors are comparable
    choice = parse_choice(f"cluster clusters={clusters}")
    stored = encode_matrix(choice, weight, "float32")
    ours = float((decode_matrix(choice, stored, (1, 600)) - weight).square().sum())
    values = np.sort(weight.double().numpy().ravel())
    seeds = values[np.linspace(0, len(values) - 1, 2 * clusters + 1)[1::2].astype(int)]
    oracle = KMeans(clusters, init=seeds[:, None], n_init=1, max_iter=30, tol=0).fit(values[:, None])
    assert ours <= oracle.inertia_ * 1.02


def test_the_nearest_value_is_taken() -> None:
    """No other value of the codebook is nearer to the scaled weight."""
    choice = parse_choice("cluster clusters=5")
    weight = torch.randn(4, 43, generator=torch.Generator().manual_seed(0))
    stored = encode_matrix(choice, weight, "float32")
    candidates = stored["codebook"] * stored["row_scale"].float().unsqueeze(-1)
    nearest = (candidates - weight.unsqueeze(-1)).abs().amin(-1)
    torch.testing.assert_close((decode_matrix(choice, stored, (4, 43)) - weight).abs(), nearest, rtol=1e-5, atol=1e-6)


def test_few_values_are_kept_exactly() -> None:
    """A matrix of no more values than the codebook holds loses only the rounding of the row's scale."""
    weight = torch.tensor([[-1.0, 0.0, 0.5, 0.5], [0.5, 0.0, -1.0, 0.5]])
    choice = parse_choice("cluster clusters=8")
    decoded = decode_matrix(choice, encode_matrix(choice, weight, "float32"), (2, 4))
    torch.testing.assert_close(decoded, weight, rtol=1e-5, atol=1e-6)
