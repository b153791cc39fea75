"""Codebooks of vectors."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from sklearn.cluster import KMeans

from paredown.compressors.bank.encoding import decode_matrix, encode_matrix
from paredown.compressors.methods import vector_quantize
from paredown.compressors.methods.vector_quantize import fitted_scale, swept_indices
from paredown.compressors.numerics.hessian import hessian
from paredown.compressors.numerics.vector_codebook import ROWS, fitted_codebook, k_means
from paredown.space.choice import parse_choice
from paredown.space.layouts import matrix_fault, matrix_layout
from paredown.space.statistics import Statistics
from paredown.space.tensors import total_bytes
from shared.correlated import statistics_of

SHAPE = (48, 64)


def normal(shape: tuple[int, int] = SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decoded(text: str, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
    choice, shape = parse_choice(text), (weight.shape[0], weight.shape[1])
    return decode_matrix(choice, encode_matrix(choice, weight, "float32", statistics), shape)


def lost(text: str, seed: int) -> float:
    """Mean squared error of the outputs: trace(D H D'), in float64."""
    weight, statistics = normal(seed=seed), statistics_of(SHAPE, seed)
    difference = (decoded(text, weight, statistics) - weight).double()
    return float((difference @ statistics["second_moment"].double() @ difference.T).trace())


@pytest.mark.parametrize("clusters", [2, 7, 40])
def test_k_means_is_nearly_as_good_as_the_best_of_scikit_learns(clusters: int) -> None:
    """The best of ten scikit-learn starts on weighted vectors is less than a tenth better than our single start."""
    vectors, costs = normal((800, 3), clusters), normal((800, 1), clusters + 1).exp()
    centroids = k_means(vectors, costs.expand(-1, 3), clusters)
    distances = (vectors.unsqueeze(1) - centroids).square().sum(-1).amin(1)
    oracle = KMeans(clusters, n_init=10, random_state=0).fit(
        vectors.double().numpy(), sample_weight=costs.double().numpy()[:, 0]
    )
    assert float((costs[:, 0] * distances).sum()) < 1.1 * oracle.inertia_


def test_costs_differ_by_coordinate() -> None:
    """A coordinate that costs nothing is ignored: two clusters are found on the one that counts."""
    vectors = torch.stack([torch.tensor([-1.0, 1.0]).repeat(50), 100 * normal((100, 1))[:, 0]], 1)
    costs = torch.tensor([1.0, 0.0]).expand(100, 2)
    assert sorted(k_means(vectors, costs, 2)[:, 0].tolist()) == [-1.0, 1.0]


@pytest.mark.parametrize("moment", [torch.eye(64), 3 * torch.eye(64)])
def test_without_correlations_the_nearest_vector_is_taken(moment: torch.Tensor) -> None:
    """There is nothing to make up for: no other vector of the codebook is nearer to the scaled run."""
    weight, choice = normal(), parse_choice("vector-quantize centroids=9 dimensions=4")
    stored = encode_matrix(choice, weight, "float32", Statistics(second_moment=moment))
    candidates = stored["codebook"].float() * stored["row_scale"].float().unsqueeze(-1)
    runs = weight.view(48, 16, 4)
    nearest = (runs.unsqueeze(2) - candidates.unsqueeze(1)).square().sum(-1).amin(-1)
    found = (decode_matrix(choice, stored, SHAPE).view(48, 16, 4) - runs).square().sum(-1)
    torch.testing.assert_close(found, nearest, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_made_up_for(seed: int) -> None:
    """On correlated inputs the outputs lose less than half of the loss without knowledge of the correlations."""
    weight, statistics = normal(seed=seed), statistics_of(SHAPE, seed)
    moment = statistics["second_moment"]
    untold = Statistics(second_moment=moment.diagonal().diag())
    difference = (decoded("vector-quantize centroids=64", weight, untold) - weight).double()
    assert lost("vector-quantize centroids=64", seed) < 0.5 * float(
        (difference @ moment.double() @ difference.T).trace()
    )


@pytest.mark.parametrize("seed", range(3))
def test_vectors_lose_less_than_a_grid_of_the_same_bits(seed: int) -> None:
    """3 bits a weight, a scale for each row, both calibrated: less is lost of the outputs than by GPTQ."""
    assert lost("vector-quantize centroids=64", seed) < lost("quantize bits=3 algorithm=gptq", seed)


@pytest.mark.parametrize("seed", range(3))
def test_more_vectors_never_hurt(seed: int) -> None:
    """The outputs lose less with each doubling or more."""
    losses = [lost(f"vector-quantize centroids={centroids}", seed) for centroids in (2, 8, 32, 128)]
    assert all(more < fewer for fewer, more in pairwise(losses)), losses


def test_few_vectors_are_kept() -> None:
    """A matrix of no more runs than the codebook holds loses only the rounding to bfloat16 of codebook and scales."""
    weight = torch.tensor([[-1.0, 0.0, 0.5, 1.0], [0.5, 1.0, -1.0, 0.0]]).repeat(4, 1)
    kept = decoded("vector-quantize centroids=3", weight, statistics_of((8, 4)))
    torch.testing.assert_close(kept, weight, rtol=0.01, atol=0.01)


def test_inputs_that_never_came_do_no_harm() -> None:
    """A second moment that is zero, or of rank 1, gives finite weights that are near."""
    for moment in (torch.zeros(64, 64), torch.ones(64, 64)):
        weight = normal()
        kept = decoded("vector-quantize centroids=256", weight, Statistics(second_moment=moment))
        assert torch.isfinite(kept).all()
        if not moment.any():
            assert (kept - weight).square().mean() < 0.05


def test_bytes_are_those_worked_out_by_hand() -> None:
    """For 24 rows of 172 in runs of 4: 43 indices of 7 bits in 10 words, 100 vectors, a scale for each row."""
    choice = parse_choice("vector-quantize centroids=100 dimensions=4")
    assert total_bytes(matrix_layout(choice, (24, 172), "bfloat16")) == 24 * 4 * 10 + 2 * 100 * 4 + 2 * 24


def test_runs_must_divide_the_row() -> None:
    """The message has what does."""
    fault = matrix_fault(parse_choice("vector-quantize centroids=4 dimensions=8"), (8, 172))
    assert fault == "dimensions 8 does not divide in_features 172; use 2, 4"


def curvature_of(columns: int, seed: int = 0) -> torch.Tensor:
    return hessian(statistics_of((1, columns), seed)["second_moment"])


def damped_loss(weight: torch.Tensor, kept: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
    """Damped loss of each row, in float64."""
    error = (weight - kept).double()
    return ((error @ curvature.double()) * error).sum(1)


@pytest.mark.parametrize(("dimensions", "columns"), [(2, 64), (3, 132), (8, 264)])
def test_no_sweep_raises_the_output_error(dimensions: int, columns: int) -> None:
    """Holds for every row from random indices on, also across the columns after which errors are passed on."""
    weight, codebook, curvature = normal((16, columns)), normal((9, dimensions), 1), curvature_of(columns)
    indices = torch.randint(9, (16, columns // dimensions), generator=torch.Generator().manual_seed(2))
    losses = []
    for _ in range(4):
        losses.append(damped_loss(weight, codebook[indices].flatten(1), curvature))
        indices = swept_indices(weight, indices, codebook, curvature)
    assert all(bool((after <= before * (1 + 1e-5)).all()) for before, after in pairwise(losses))
    assert float(losses[1].sum()) < 0.5 * float(losses[0].sum())


@pytest.mark.parametrize("seed", range(3))
def test_where_sweeps_end_no_other_index_is_better(seed: int) -> None:
    """Each index of a tiny matrix exchanged for each other vector, one at a time: no row's output error falls."""
    weight, codebook, curvature = normal((5, 12), seed), normal((6, 2), seed + 9), curvature_of(12, seed)
    indices = torch.zeros(5, 6, dtype=torch.int64)
    while not torch.equal(indices, after := swept_indices(weight, indices, codebook, curvature)):
        indices = after
    least = damped_loss(weight, codebook[indices].flatten(1), curvature)
    for run in range(6):
        for vector in range(6):
            other = indices.clone()
            other[:, run] = vector
            assert bool((damped_loss(weight, codebook[other].flatten(1), curvature) >= least * (1 - 1e-5)).all())


@pytest.mark.parametrize("rows", [6, 2 * ROWS + 1])
def test_a_codebook_is_fitted_by_least_squares(rows: int) -> None:
    """Three unknowns, as many as steps: the least-squares solution for the outputs, on rows spread over the matrix."""
    weight, curvature, scale = normal((rows, 8)), curvature_of(8), normal((rows, 1), 1).exp()
    indices = torch.randint(3, (rows, 8), generator=torch.Generator().manual_seed(2))
    every = -(-rows // ROWS)
    root = torch.linalg.cholesky(curvature.double())
    choice = torch.nn.functional.one_hot(indices[::every], 3).double() * scale[::every].double().unsqueeze(-1)
    design = torch.einsum("rck,co->rok", choice, root).flatten(0, 1)
    wanted = (weight[::every].double() @ root).flatten()
    oracle = torch.linalg.lstsq(design, wanted.unsqueeze(1)).solution
    fitted = fitted_codebook(weight, indices, normal((3, 1), 3), scale, curvature)
    torch.testing.assert_close(fitted.double(), oracle, rtol=0.01, atol=1e-3)
    assert torch.equal(fitted, fitted.to(torch.bfloat16).float())


def test_a_codebook_that_would_lose_by_rounding_stays() -> None:
    """The best codebook, in float32, is not exchanged for what bfloat16 holds."""
    indices, best = torch.arange(4).repeat(6, 1), torch.tensor([[0.1], [0.2], [0.3], [0.7]])
    weight = best[indices].flatten(1)
    assert torch.equal(fitted_codebook(weight, indices, best, torch.ones(6, 1), curvature_of(4)), best)


def test_scales_are_the_best_that_are_stored() -> None:
    """No neighbour that bfloat16 holds is better for a row; a row of zeros keeps its scale."""
    weight, kept, curvature = normal((16, 12)), normal((16, 12)) + 0.3 * normal((16, 12), 1), curvature_of(12)
    kept[3] = 0
    before = torch.full((16, 1), 0.5)
    scale = fitted_scale(weight, kept, before, curvature)
    assert scale[3] == 0.5
    least = damped_loss(weight, kept * scale, curvature)
    for neighbour in (scale * (1 + 2**-7), scale * (1 - 2**-7), before):
        assert bool(
            (damped_loss(weight, kept * neighbour.to(torch.bfloat16).float(), curvature) >= least * (1 - 1e-5)).all()
        )


@pytest.mark.parametrize("centroids", [8, 64])
def test_rounds_lower_the_output_error(centroids: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first rounds, and three together by a twentieth and more."""
    text, losses = f"vector-quantize centroids={centroids}", []
    for rounds in (0, 1, 3):
        monkeypatch.setattr(vector_quantize, "ROUNDS", rounds)
        losses.append(lost(text, 0))
    assert losses[2] < losses[1] < losses[0]
    assert losses[2] < 0.95 * losses[0]
