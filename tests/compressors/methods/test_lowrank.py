"""Factors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.compressors.bank.encoding import decode_matrix, encode_matrix
from paredown.compressors.methods.lowrank import DAMPING
from paredown.space.choice import parse_choice
from paredown.space.errors import PlanError
from paredown.space.layouts import matrix_fault, matrix_layout
from paredown.space.site import Inventory, Member, Site
from paredown.space.space import Space
from paredown.space.statistics import Statistics
from paredown.space.study_file import SpaceFile
from paredown.space.targets.target import targets
from paredown.space.tensors import total_bytes
from shared.correlated import inputs_of, statistics_of

SHAPES = [(24, 172), (172, 24), (1, 172), (16, 16)]
Matrix = NDArray[np.float64]


def normal(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decoded(text: str, weight: torch.Tensor, statistics: Statistics | None = None) -> torch.Tensor:
    choice, shape = parse_choice(text), (weight.shape[0], weight.shape[1])
    return decode_matrix(choice, encode_matrix(choice, weight, "float32", statistics or Statistics()), shape)


def whitened_values(weight: torch.Tensor, moment: Matrix) -> Matrix:
    """Singular values of W L with H = L L', in float64, by numpy's Cholesky decomposition."""
    found: Matrix = np.linalg.svd(weight.double().numpy() @ np.linalg.cholesky(moment), compute_uv=False)
    return found


def lost(difference: torch.Tensor, moment: Matrix) -> float:
    """Mean squared error of the outputs: trace(D H D')."""
    change = difference.double().numpy()
    return float(np.trace(change @ moment @ change.T))


def moment_of(statistics: Statistics, damping: float = DAMPING) -> Matrix:
    moment: Matrix = statistics["second_moment"].double().numpy()
    return moment + damping * np.trace(moment) / len(moment) * np.eye(len(moment))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_is_the_singular_values_left_out(shape: tuple[int, int]) -> None:
    """Eckart and Young: no matrix of that rank is nearer. The oracle is numpy's in float64."""
    weight = normal(shape)
    values = torch.from_numpy(np.linalg.svd(weight.double().numpy(), compute_uv=False))
    for rank in sorted({1, (min(shape) + 1) // 2, min(shape)}):
        difference = decoded(f"lowrank rank={rank}", weight) - weight
        torch.testing.assert_close(
            difference.double().square().sum(), values[rank:].square().sum(), rtol=1e-4, atol=1e-6
        )
        assert torch.linalg.matrix_rank(difference + weight) <= rank


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_of_the_outputs_is_the_whitened_singular_values_left_out(shape: tuple[int, int]) -> None:
    """Singular values of W L, where L L' is the damped second moment; no matrix of that rank does better."""
    weight, statistics = normal(shape), statistics_of(shape)
    moment = moment_of(statistics)
    values = whitened_values(weight, moment)
    for rank in sorted({1, (min(shape) + 1) // 2, min(shape)}):
        found = lost(decoded(f"lowrank rank={rank} algorithm=whitened", weight, statistics) - weight, moment)
        assert found == pytest.approx(np.square(values[rank:]).sum(), rel=1e-3, abs=1e-6 * np.square(values).sum())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_whitened_loses_no_more_of_the_outputs(shape: tuple[int, int], seed: int) -> None:
    """At no rank more than plain SVD does, nor than it does itself at the rank below."""
    weight, statistics = normal(shape, seed), statistics_of(shape, seed)
    moment = moment_of(statistics)
    before, whole = float("inf"), lost(weight, moment)
    for rank in range(1, min(shape) + 1):
        whitened, plain = (
            lost(decoded(f"lowrank rank={rank} algorithm={name}", weight, statistics) - weight, moment)
            for name in ("whitened", "svd")
        )
        assert whitened <= min(plain, before) + 1e-6 * whole
        before = whitened


def test_inputs_that_never_came_do_no_harm() -> None:
    """With a second moment of rank 3, or zero, outputs are kept, all is finite, and unread inputs get the plain SVD."""
    weight, inputs = normal((24, 40)), normal((3, 40), 1)
    seen = Statistics(second_moment=inputs.T @ inputs / 3)
    kept = decoded("lowrank rank=3 algorithm=whitened", weight, seen)
    torch.testing.assert_close(inputs @ kept.T, inputs @ weight.T, rtol=1e-2, atol=1e-2)
    for nothing in (torch.zeros(40, 40), 1e-30 * torch.eye(40)):
        plain = decoded("lowrank rank=5", weight)
        torch.testing.assert_close(
            decoded("lowrank rank=5 algorithm=whitened", weight, Statistics(second_moment=nothing)),
            plain,
            rtol=1e-3,
            atol=1e-3,
        )


def test_matrices_that_read_the_same_inputs_do_not_mix() -> None:
    """Statistics are shared by matrices and ranks; each gets what it gets alone, in whatever order they come."""
    shared = statistics_of((24, 40))
    first, second = normal((24, 40), 1), normal((24, 40), 2)
    for weight, rank in ((first, 3), (second, 3), (first, 7), (first, 5), (second, 7)):
        text = f"lowrank rank={rank} algorithm=whitened"
        assert torch.equal(decoded(text, weight, shared), decoded(text, weight, statistics_of((24, 40))))


def test_a_share_of_the_rank_is_the_rank() -> None:
    """A multiple of 32 where it is larger; the same bytes and the same numbers as the rank written out."""
    weight = normal((172, 100))
    for fraction, rank in ((0.05, 5), (0.3334, 32), (0.31, 31), (0.7, 64), (0.001, 1)):
        written, meant = (
            parse_choice(f"lowrank rank_fraction={fraction} then cast"),
            parse_choice(f"lowrank rank={rank} then cast"),
        )
        assert written.canonical((172, 100)) == meant
        assert meant.canonical((172, 100)) == meant
        assert matrix_layout(written, (172, 100), "bfloat16") == matrix_layout(meant, (172, 100), "bfloat16")
        assert torch.equal(decoded(str(written), weight), decoded(str(meant), weight))


def test_matrices_of_one_site_keep_their_own_share() -> None:
    """A share stays a share where a site's matrices differ: the rank of the first is too large for the second."""
    members = tuple(
        Member(module=name, shape=shape, dtype="float32") for name, shape in (("q", (64, 64)), ("k", (16, 64)))
    )
    choice = parse_choice("lowrank rank_fraction=0.5 then cast")
    wishes = SpaceFile(choices={"linear": [str(choice)]})
    for found, expected in ((members, choice), (members[:1], choice.canonical((64, 64)))):
        site = Site(name="site", kind="linear", block=0, members=found)
        inventory = Inventory(architecture="Toy", sites=(site,), rest={})
        assert Space.build(inventory, targets["paredown"], wishes).options["site"] == (expected,)


@pytest.mark.parametrize("text", ["lowrank", "lowrank rank=3 rank_fraction=0.5"])
def test_one_size_is_given(text: str) -> None:
    """Neither none nor two."""
    with pytest.raises(PlanError, match="give either rank or rank_fraction"):
        parse_choice(text)


@pytest.mark.parametrize("algorithm", ["svd", "whitened"])
def test_the_left_factor_knows_its_inputs(algorithm: str) -> None:
    """It reads what the right factor makes of the layer's inputs; the oracle runs them through it."""
    shape = (24, 40)
    weight, inputs = normal(shape), inputs_of(40)
    choice = parse_choice(f"lowrank rank=6 algorithm={algorithm} then quantize bits=4")
    statistics = Statistics(second_moment=inputs.T @ inputs / len(inputs), mean_absolute=inputs.abs().mean(0))
    parts = choice.encode(weight, statistics)[1]
    made = inputs.double() @ parts["right"].matrix.double().T
    oracle = (made.T @ made / len(made)).float()
    torch.testing.assert_close(
        parts["left"].statistics["second_moment"], oracle, rtol=1e-3, atol=1e-5 * float(oracle.max())
    )
    torch.testing.assert_close(parts["left"].statistics["mean_absolute"], made.abs().mean(0).float(), rtol=0.1, atol=0)
    assert parts["right"].statistics["second_moment"] is statistics.second_moment
    assert parts["right"].statistics["mean_absolute"] is statistics.mean_absolute


def test_what_errors_cost_is_passed_on_to_the_factors() -> None:
    """A factor's entry is as important as a small change of it with the other factor fixed."""
    shape = (6, 10)
    weight, importance = normal(shape), statistics_of(shape)["importance"]
    parts = parse_choice("lowrank rank=3 then quantize bits=8").encode(weight, Statistics(importance=importance))[1]
    left, right = parts["left"].matrix, parts["right"].matrix
    for name, row, column in (("left", 4, 2), ("right", 1, 7)):
        change = torch.zeros_like(parts[name].matrix)
        change[row, column] = 1
        moved = change @ right if name == "left" else left @ change
        torch.testing.assert_close(
            parts[name].statistics["importance"][row, column], (importance * moved.square()).sum()
        )


def test_calibrated_factors_keep_more_of_the_outputs() -> None:
    """What follows uses the factors' own statistics: rounded by GPTQ they lose less than by search."""
    weight, statistics = normal((48, 64)) @ normal((64, 64), 1), statistics_of((48, 64))
    moment = moment_of(statistics, 0)
    searched, calibrated = (
        lost(
            decoded(f"lowrank rank=16 algorithm=whitened then quantize bits=3 algorithm={name}", weight, statistics)
            - weight,
            moment,
        )
        for name in ("search", "gptq")
    )
    assert calibrated < 0.8 * searched


def test_bytes_are_those_of_the_factors() -> None:
    """And of nothing else, whatever follows and however the factors were found."""
    for then in ("quantize bits=4", "quantize bits=3 algorithm=gptq", "cast"):
        alone = sum(total_bytes(matrix_layout(parse_choice(then), shape, "float32")) for shape in ((24, 6), (6, 40)))
        whole = parse_choice(f"lowrank rank=6 algorithm=whitened then {then}")
        assert total_bytes(matrix_layout(whole, (24, 40), "float32")) == alone


def test_a_rank_above_the_full_one_is_refused() -> None:
    """It would cost more than it saves."""
    assert "above the full rank 8" in str(matrix_fault(parse_choice("lowrank rank=9"), (8, 172)))


def test_without_calibration_it_is_said() -> None:
    """Not approximated in silence."""
    with pytest.raises(PlanError, match="second_moment of the inputs was not collected"):
        decoded("lowrank rank=2 algorithm=whitened", normal((8, 8)))
