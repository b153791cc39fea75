"""Factors, and few bits for what they leave."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.compressors.bank.encoding import decode_matrix, encode_matrix
from paredown.space.choice import parse_choice
from paredown.space.errors import PlanError
from paredown.space.layouts import matrix_fault, matrix_layout
from paredown.space.tensors import total_bytes
from shared.correlated import statistics_of

SHAPE = (32, 64)


def normal(shape: tuple[int, int] = SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def change(text: str, weight: torch.Tensor, seed: int = 0) -> torch.Tensor:
    choice, shape = parse_choice(text), (weight.shape[0], weight.shape[1])
    return decode_matrix(choice, encode_matrix(choice, weight, "float32", statistics_of(shape, seed)), shape) - weight


def lost(difference: torch.Tensor, seed: int = 0) -> float:
    """Mean squared error of the outputs: trace(D H D'), in float64."""
    moment = statistics_of(SHAPE, seed)["second_moment"].double()
    return float((difference.double() @ moment @ difference.double().T).trace())


@pytest.mark.parametrize("algorithm", ["svd", "whitened"])
@pytest.mark.parametrize("factor_bits", [8, 16])
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_a_residual_that_is_kept_gives_the_matrix_back(algorithm: str, factor_bits: int, rounds: int) -> None:
    """The residual makes up for the rounding of the factors, however rough: one rounding of float32 is left."""
    weight = normal()
    difference = change(
        f"lowrank-residual rank=5 algorithm={algorithm} factor_bits={factor_bits} rounds={rounds} then keep", weight
    )
    assert difference.abs().max() <= 4 * torch.finfo(torch.float32).eps * weight.abs().max()


@pytest.mark.parametrize("factor_bits", [8, 16])
def test_a_residual_in_bfloat16_is_rounded_once(factor_bits: int) -> None:
    """Factors of rank 5 leave little of a matrix of rank 5; a residual with 8 bits of mantissa loses 2**-8 of it."""
    weight = normal((32, 5)) @ normal((5, 64), 1)
    choice = parse_choice(f"lowrank-residual rank=5 factor_bits={factor_bits} rounds=0 then cast")
    residual = choice.encode(weight)[1]["residual"].matrix
    assert residual.abs().max() < 0.05 * weight.abs().max()
    difference = change(str(choice), weight)
    assert difference.abs().max() <= 2**-8 * residual.abs().max() + 1e-6


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("algorithm", ["search", "gptq"])
def test_more_rounds_never_hurt(algorithm: str, seed: int) -> None:
    """In the outputs, which the factors are fitted to; and one round is already better than no factors."""
    weight, then = normal(seed=seed), f"quantize bits=2 group_size=16 algorithm={algorithm}"
    plain = lost(change(then, weight, seed), seed)
    losses = [
        lost(
            change(
                f"lowrank-residual rank=4 factor_bits=16 algorithm=whitened rounds={rounds} then {then}", weight, seed
            ),
            seed,
        )
        for rounds in (1, 2, 4, 8)
    ]
    assert losses[0] < plain
    assert all(more <= fewer * (1 + 1e-6) for fewer, more in pairwise(losses)), losses


def test_without_rounds_the_factors_are_those_of_the_matrix() -> None:
    """The leading singular triplets, in float64 by torch: the residual has the others."""
    weight = normal()
    residual = (
        parse_choice("lowrank-residual rank=6 factor_bits=16 rounds=0 then quantize bits=3")
        .encode(weight)[1]["residual"]
        .matrix
    )
    values = torch.linalg.svdvals(weight.double())
    torch.testing.assert_close(residual.double().square().sum(), values[6:].square().sum(), rtol=1e-3, atol=0)


def test_the_residual_reads_what_the_matrix_reads() -> None:
    """So that what follows may be calibrated."""
    statistics = statistics_of(SHAPE)
    choice = parse_choice("lowrank-residual rank=6 algorithm=whitened then quantize bits=3 algorithm=gptq")
    assert choice.encode(normal(), statistics)[1]["residual"].statistics is statistics


@pytest.mark.parametrize("factor_bits", [8, 16])
def test_bytes_are_those_of_factors_and_residual(factor_bits: int) -> None:
    """Worked out by hand for 24 rows of 172 at rank 5."""
    factors = {16: 2 * 5 * (24 + 172), 8: 24 * 8 + 2 * 24 + 16 + 5 * 172 + 2 * 5 + 16}[factor_bits]
    residual = 4 * 24 * 17 + 2 * 24 * 4 + 16
    choice = parse_choice(f"lowrank-residual rank=5 factor_bits={factor_bits} then quantize bits=3 group_size=43")
    assert total_bytes(matrix_layout(choice, (24, 172), "bfloat16")) == factors + residual


def test_factors_within_factors_have_their_own_names() -> None:
    """A residual that is factored in its turn: no tensor overwrites another."""
    inner = "lowrank rank=3 then quantize bits=8"
    for then in (inner, f"lowrank-residual rank=2 then {inner}"):
        choice = parse_choice(f"lowrank-residual rank=5 then {then}")
        stored = encode_matrix(choice, normal(), "float32")
        assert stored.keys() == matrix_layout(choice, SHAPE, "float32").keys()
        assert torch.linalg.matrix_rank(decode_matrix(choice, stored, SHAPE)) >= 8


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("lowrank-residual rank=5", "stores the whole residual; add 'then quantize bits=3', or use 'lowrank'"),
        ("lowrank-residual rank=33 then cast", "rank 33 is above the full rank 32"),
        ("lowrank-residual rank=5 then quantize bits=4 group_size=48", "does not divide in_features 64"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, fault: str) -> None:
    """With the remedy, before any weight is touched."""
    assert fault in str(matrix_fault(parse_choice(text), SHAPE))


def test_factors_are_stored_in_16_or_8_bits() -> None:
    with pytest.raises(PlanError, match="lowrank-residual: factor_bits: expected 16 or 8, got 4"):
        parse_choice("lowrank-residual rank=4 factor_bits=4 then quantize bits=4")
