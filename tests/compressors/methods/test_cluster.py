"""Codebooks."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch
from sklearn.cluster import KMeans

from paredown.compressors.bank.encoding import decode_matrix, encode_matrix, encode_site
from paredown.compressors.numerics.scalar_codebook import codebook_of
from paredown.space.choice import PlanError, parse_choice
from paredown.space.layouts import matrix_layout
from paredown.space.site import Member, Site
from paredown.space.statistics import NO_STATISTICS, Statistics
from paredown.space.tensors import total_bytes
from shared.correlated import statistics_of


def normal(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def clustered(choice: str, weight: torch.Tensor, statistics: Statistics = NO_STATISTICS) -> torch.Tensor:
    made = parse_choice(choice)
    shape = (weight.shape[0], weight.shape[1])
    return decode_matrix(made, encode_matrix(made, weight, "float32", statistics), shape)


def points(seed: int, power: int, importance: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(600, generator=generator) ** power).sort().values
    heavy = torch.randn(600, generator=generator).square() * values.abs()
    return values.double(), torch.ones(600, dtype=torch.float64) if importance == "equal" else heavy.double()


def loss(values: torch.Tensor, importance: torch.Tensor, codebook: torch.Tensor) -> float:
    return float((importance * (values[:, None] - codebook.double()).square().amin(-1)).sum())


@pytest.mark.parametrize("clusters", [2, 3, 7, 16, 31])
@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize("importance", ["equal", "heavy"])
def test_k_means_is_as_good_as_scikit_learns(clusters: int, power: int, importance: str) -> None:
    """No worse than from where it starts, evenly spaced quantiles, nor than the best of five starts of its own."""
    values, weights = points(clusters, power, importance)
    ours = loss(values, weights, codebook_of(values, weights, clusters))
    samples, quantiles = (
        values.numpy()[:, None],
        values[torch.linspace(0, len(values) - 1, 2 * clusters + 1)[1::2].long()],
    )
    for start in (quantiles.numpy()[:, None], "k-means++"):
        oracle = KMeans(
            clusters, init=start, n_init=5 if isinstance(start, str) else 1, max_iter=100, tol=0, random_state=0
        )
        assert ours <= oracle.fit(samples, sample_weight=weights.numpy()).inertia_ * 1.0005


@pytest.mark.parametrize("seed", range(5))
def test_few_values_have_the_best_codebook_there_is(seed: int) -> None:
    """Every way to cut 11 values, some of them equal, into 3 intervals was tried: none is better."""
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(11, generator=generator) * 3).round().sort().values.double()
    importance = torch.rand(11, generator=generator).double()
    best = float("inf")
    for first, second in combinations(range(1, 11), 2):
        parts = [slice(0, first), slice(first, second), slice(second, 11)]
        means = torch.stack([(values[part] * importance[part]).sum() / importance[part].sum() for part in parts])
        best = min(best, loss(values, importance, means))
    assert loss(values, importance, codebook_of(values, importance, 3)) == pytest.approx(best, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("clusters", "distortion"), [(2, 0.3634), (4, 0.1175), (8, 0.03454), (16, 0.009497)])
def test_many_normal_values_have_the_known_quantizer(clusters: int, distortion: float) -> None:
    """The mean squared errors of the best quantizers of a normal variable, as Max (1960) tabulates them."""
    probabilities = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    values = torch.distributions.Normal(0.0, 1.0).icdf(probabilities)
    found = loss(values, torch.ones_like(values), codebook_of(values, torch.ones_like(values), clusters)) / len(values)
    assert found == pytest.approx(distortion, rel=0.01)


def test_heavy_values_draw_the_codebook_to_them() -> None:
    """All of the importance on two values, and two clusters: they are the codebook."""
    values = torch.linspace(-1, 1, 101)
    importance = torch.zeros(101)
    importance[[20, 70]] = 1.0
    torch.testing.assert_close(codebook_of(values, importance, 2), values[[20, 70]])


@pytest.mark.parametrize("weighting", ["none", "inputs", "fisher"])
def test_the_nearest_value_is_taken(weighting: str) -> None:
    """No other value of the row's codebook is nearer to the scaled weight, whatever errors count."""
    choice = parse_choice(f"cluster clusters=5 rows=3 weighting={weighting}")
    weight = normal((8, 43))
    stored = encode_matrix(choice, weight, "float32", statistics_of((8, 43)))
    assert stored["codebook"].shape == (3, 5)
    candidates = (stored["codebook"].repeat_interleave(3, 0)[:8] * stored["row_scale"].float()).unsqueeze(1)
    nearest = (candidates - weight.unsqueeze(-1)).abs().amin(-1)
    torch.testing.assert_close((decode_matrix(choice, stored, (8, 43)) - weight).abs(), nearest, rtol=1e-5, atol=1e-6)


def test_few_values_are_kept_exactly() -> None:
    """A matrix of no more values than the codebook holds loses only the rounding of the row's scale."""
    weight = torch.tensor([[-1.0, 0.0, 0.5, 0.5], [0.5, 0.0, -1.0, 0.5]])
    torch.testing.assert_close(clustered("cluster clusters=8", weight), weight, rtol=1e-5, atol=1e-6)


def weighted_error(weighting: str, before: torch.Tensor, after: torch.Tensor, statistics: Statistics) -> float:
    squared = (before - after).double().square()
    if weighting == "inputs":
        squared = squared * statistics["second_moment"].diagonal()
    if weighting == "fisher":
        squared = squared * statistics["importance"]
    return float(squared.sum())


@pytest.mark.parametrize("clusters", [4, 8, 16])
def test_each_weighting_is_best_at_its_own_error(clusters: int) -> None:
    """With rows and inputs of unequal size, no other weighting gives less of the error that is counted."""
    weight = normal((12, 96)) * torch.arange(1, 13)[:, None]
    statistics = statistics_of((12, 96))
    decoded = {
        name: clustered(f"cluster clusters={clusters} weighting={name}", weight, statistics)
        for name in ("none", "inputs", "fisher")
    }
    for name in decoded:
        errors = {other: weighted_error(name, weight, decoded[other], statistics) for other in decoded}
        assert min(errors, key=lambda other: errors[other]) == name, errors


@pytest.mark.parametrize("weighting", ["none", "inputs", "fisher"])
@pytest.mark.parametrize("seed", range(2))
def test_more_never_hurts(weighting: str, seed: int) -> None:
    """The error that the weighting counts does not grow with more clusters, nor with more codebooks."""
    weight, statistics = normal((32, 64), seed), statistics_of((32, 64), seed)
    for form, values in (("clusters={}", (2, 3, 5, 8, 16, 64)), ("clusters=6 rows={}", ("all", 8))):
        decoded = [
            clustered(f"cluster {form.format(value)} weighting={weighting}", weight, statistics) for value in values
        ]
        errors = [weighted_error(weighting, weight, matrix, statistics) for matrix in decoded]
        assert all(finer <= coarser * (1 + 1e-6) for coarser, finer in pairwise(errors)), errors


def test_errors_count_in_the_size_of_the_weights() -> None:
    """A row of four levels a thousand times as large as the others has the codebook to itself."""
    weight = normal((9, 60))
    weight[4] = torch.tensor([-3000.0, -100.0, 500.0, 2000.0]).repeat(15)
    torch.testing.assert_close(clustered("cluster clusters=4", weight)[4], weight[4], rtol=1e-3, atol=0)


def test_rows_that_share_a_codebook_are_a_matrix_of_their_own() -> None:
    """Eight rows with a codebook for three, three and two: the same as three matrices."""
    weight, statistics = normal((8, 40)), statistics_of((8, 40))
    whole = clustered("cluster clusters=4 rows=3 weighting=fisher", weight, statistics)
    apart = [
        clustered(
            "cluster clusters=4 weighting=fisher", weight[part], Statistics(importance=statistics["importance"][part])
        )
        for part in (slice(0, 3), slice(3, 6), slice(6, 8))
    ]
    assert torch.equal(whole, torch.cat(apart))


@pytest.mark.parametrize("weighting", ["inputs", "fisher"])
def test_transposed_layers_are_weighted_along_their_inputs(weighting: str) -> None:
    """GPT-2 stores its matrices the other way round: what is stored is the same."""
    weight, statistics = normal((8, 24)), statistics_of((8, 24))
    choice = parse_choice(f"cluster clusters=4 weighting={weighting}")
    stored = []
    for transposed in (False, True):
        member = Member(module="m", shape=(8, 24), dtype="float32", transposed=transposed)
        site = Site(name="m", kind="linear", block=0, members=(member,))
        stored.append(encode_site(site, choice, {"m.weight": weight.T if transposed else weight}, {"m": statistics}))
    assert all(torch.equal(stored[1][name], tensor) for name, tensor in stored[0].items())


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    """Nothing that counts leaves the codebook finite."""
    weight = normal((4, 16))
    for choice in ("cluster clusters=3 weighting=inputs", "cluster clusters=3 weighting=fisher"):
        decoded = clustered(
            choice, weight, Statistics(second_moment=torch.zeros(16, 16), importance=torch.zeros(4, 16))
        )
        assert torch.isfinite(decoded).all()
        assert decoded.abs().max() <= weight.abs().max() * 1.01


@pytest.mark.parametrize(("rows", "codebooks"), [("all", 1), ("64", 1), ("24", 1), ("23", 2), ("8", 3), ("1", 24)])
def test_every_codebook_is_counted(rows: str, codebooks: int) -> None:
    """For 24 rows of 172 with 9 clusters: 22 words of indices a row, 36 bytes a codebook, two bytes a scale."""
    choice = parse_choice(f"cluster clusters=9 rows={rows}")
    assert total_bytes(matrix_layout(choice, (24, 172), "bfloat16")) == 24 * 4 * 22 + 36 * codebooks + 2 * 24
    assert str(choice.canonical((24, 172))) == f"cluster clusters=9{'' if codebooks == 1 else f' rows={rows}'}"


def test_what_cannot_be_is_refused() -> None:
    """An unknown weighting, no rows, and a statistic that was not collected."""
    with pytest.raises(PlanError, match="weighting: Input should be 'none', 'inputs' or 'fisher'"):
        parse_choice("cluster clusters=8 weighting=outputs")
    with pytest.raises(PlanError, match="rows"):
        parse_choice("cluster clusters=8 rows=0")
    with pytest.raises(PlanError, match="importance of the inputs was not collected"):
        clustered(
            "cluster clusters=8 weighting=fisher",
            normal((2, 4)),
            statistics_of((2, 4)).only(frozenset({"second_moment"})),
        )
