"""Rounding that makes up for its errors in the layer's output: GPTQ, and coordinate descent from there."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from paredown.compressors.bank.encoding import decode_matrix, decode_site, encode_matrix, encode_site
from paredown.compressors.numerics.bit_packing import unpack
from paredown.compressors.rounding.gptq import gptq, ordered_factor
from paredown.compressors.rounding.grid import Grid, Rounded, roundings
from paredown.space.choice import parse_choice
from paredown.space.errors import PlanError
from paredown.space.layouts import site_fault
from paredown.space.site import Member, Site
from paredown.space.statistics import Statistics
from paredown.space.targets.target import targets
from shared.correlated import inputs_of, statistics_of

CALIBRATED = ("gptq", "coordinate-descent")


def normal(shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def moment_of(inputs: Tensor) -> Statistics:
    return Statistics(second_moment=inputs.T @ inputs / len(inputs))


def matrix_of(rounded: Rounded, grid: Grid) -> Tensor:
    rows = len(rounded.codes)
    steps = rounded.codes.view(rows, -1, grid.group) - rounded.zero.unsqueeze(-1)
    return (steps * rounded.scale.unsqueeze(-1)).view(rows, -1)


def output_error(algorithm: str, weight: Tensor, grid: Grid, statistics: Statistics) -> float:
    """trace(D H D') of the difference D that rounding makes."""
    difference = matrix_of(roundings[algorithm].round(weight, grid, statistics), grid) - weight
    return float(((difference @ statistics["second_moment"]) * difference).sum())


def plain_gptq(weight: Tensor, rounded: Rounded, grid: Grid, moment: Tensor) -> Tensor:
    """Optimal brain quantization, largest inputs first, with a new inverse Hessian for the columns that are left."""
    current, moment = weight.double(), moment.double()
    hessian = moment + 0.01 * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)
    left = moment.diagonal().argsort(descending=True, stable=True).tolist()
    while left:
        inverse = torch.linalg.inv(hessian[left][:, left])
        column = left[0]
        scale, zero = (part[:, column // grid.group].double() for part in (rounded.scale, rounded.zero))
        code = (current[:, column] / scale + zero).round().clamp(0, grid.top)
        error = (current[:, column] - (code - zero) * scale) / inverse[0, 0]
        current[:, left] -= error[:, None] * inverse[0]
        current[:, column] = code
        left = left[1:]
    return current


@pytest.mark.parametrize(
    "grid", [Grid(bits=3, group=8), Grid(bits=4, group=40, symmetric=False), Grid(bits=2, group=4, symmetric=False)]
)
@pytest.mark.parametrize("columns", [40, 280])
def test_it_equals_the_plain_algorithm(grid: Grid, columns: int) -> None:
    """Explicit inverses, without Cholesky factor or lazy blocks, give the same codes; also for several blocks."""
    weight, statistics = normal((4, columns)), moment_of(inputs_of(columns))
    rounded = gptq(weight, grid, statistics)
    plain = plain_gptq(weight, rounded, grid, statistics["second_moment"])
    # A weight within float32's error of the middle between two codes may fall to either side, and so may its row.
    assert (rounded.codes == plain).all(1).float().mean() >= 0.75
    assert (rounded.codes == plain).float().mean() > 0.9


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [16, 96])
def test_the_output_error_falls_with_each_algorithm(bits: int, symmetric: bool, group: int) -> None:
    """On correlated inputs, coordinate descent is below GPTQ, fitted scales far above it, plain ranges highest."""
    grid, weight, statistics = (
        Grid(bits=bits, group=group, symmetric=symmetric),
        normal((48, 96)),
        moment_of(inputs_of(96)),
    )
    descent, compensated, fitted, nearest = (
        output_error(name, weight, grid, statistics)
        for name in ("coordinate-descent", "gptq", "search", "round-to-nearest")
    )
    assert descent < compensated < 0.7 * fitted
    assert compensated < 0.7 * nearest


@pytest.mark.parametrize("algorithm", CALIBRATED)
@pytest.mark.parametrize("symmetric", [True, False])
def test_uncorrelated_inputs_leave_nothing_to_make_up_for(algorithm: str, symmetric: bool) -> None:
    """Where the Hessian is the identity, GPTQ rounds to nearest on fitted scales; coordinate descent is not worse."""
    grid, weight = Grid(bits=3, group=16, symmetric=symmetric), normal((8, 64))
    statistics = Statistics(second_moment=torch.eye(64))
    rounded, searched = (roundings[name].round(weight, grid, statistics) for name in (algorithm, "search"))
    if algorithm == "gptq":
        assert torch.equal(rounded.codes, searched.codes)
        assert torch.equal(rounded.scale, searched.scale)
    assert output_error(algorithm, weight, grid, statistics) <= output_error("search", weight, grid, statistics) * (
        1 + 1e-6
    )


@pytest.mark.parametrize("algorithm", CALIBRATED)
def test_more_bits_never_hurt_the_output(algorithm: str) -> None:
    """The output error falls from each bit-width to the next."""
    weight, statistics = normal((32, 64)), moment_of(inputs_of(64))
    errors = [output_error(algorithm, weight, Grid(bits=bits, group=16), statistics) for bits in (2, 3, 4, 5, 6, 8)]
    assert all(finer < 0.6 * coarser for coarser, finer in pairwise(errors)), errors


@pytest.mark.parametrize("algorithm", CALIBRATED)
@pytest.mark.parametrize(
    ("moment", "columns"),
    [
        (torch.zeros(32, 32), 32),
        (torch.ones(32, 32), 32),
        (torch.zeros(1, 1), 1),
        (torch.ones(1, 1), 1),
        (torch.ones(32, 32) * 1e-30, 32),
        (torch.ones(32, 32) * 1e12, 32),
        (torch.diag(torch.tensor([1e12] + [1e-12] * 31)), 32),
        (
            torch.ones(32, 32) - 0.3 * torch.eye(32),
            32,
        ),  # indefinite by rounding, and more: damping rises until it is not
    ],
)
def test_any_hessian_will_do(algorithm: str, moment: Tensor, columns: int) -> None:
    """Zero, singular, tiny, huge, one number, indefinite: what comes back is on the grid and near the weights."""
    weight = normal((4, columns))
    choice = parse_choice(f"quantize bits=4 algorithm={algorithm}")
    decoded = decode_matrix(
        choice, encode_matrix(choice, weight, "float32", Statistics(second_moment=moment)), (4, columns)
    )
    assert torch.isfinite(decoded).all()
    assert (decoded - weight).abs().max() < weight.abs().max()


@pytest.mark.parametrize("algorithm", CALIBRATED)
def test_fewer_tokens_than_columns_are_enough(algorithm: str) -> None:
    """A low-rank Hessian still helps: the output error on its tokens is below that from rounding to nearest."""
    weight, statistics, grid = normal((16, 64)), moment_of(inputs_of(64, tokens=5)), Grid(bits=3, group=16)
    assert output_error(algorithm, weight, grid, statistics) < 0.1 * output_error("search", weight, grid, statistics)


def test_dead_inputs_are_rounded_to_nearest() -> None:
    """A column whose inputs were always zero takes no errors of others, and what is stored of it is its weights."""
    inputs = inputs_of(32)
    dead = [0, 7, 31]
    inputs[:, dead] = 0
    weight, grid = normal((8, 32)), Grid(bits=4, group=32)
    rounded = gptq(weight, grid, moment_of(inputs))
    nearest = (weight / rounded.scale + 8).round().clamp(0, 15)
    assert torch.equal(rounded.codes[:, dead], nearest[:, dead])
    assert not torch.equal(rounded.codes, nearest)


def test_the_factor_is_shared() -> None:
    """U' U is the inverse of the damped Hessian in falling order.

    It is made once for all choices and matrices of one input.
    """
    statistics = moment_of(inputs_of(40))
    order, factor = ordered_factor(statistics)
    moment = statistics["second_moment"].double()
    damped = moment / moment.diagonal().mean() + 0.01 * torch.eye(40, dtype=torch.float64)
    torch.testing.assert_close(
        factor.double().T @ factor.double(), torch.linalg.inv(damped[order][:, order]), rtol=1e-3, atol=1e-3
    )
    assert (moment.diagonal()[order].diff() <= 0).all()
    encode_matrix(parse_choice("quantize bits=3 algorithm=gptq"), normal((4, 40)), "float32", statistics)
    assert ordered_factor(statistics)[1] is factor
    kept = encode_matrix(parse_choice("quantize bits=2 algorithm=gptq"), normal((4, 40)), "float32", statistics)
    fresh = encode_matrix(
        parse_choice("quantize bits=2 algorithm=gptq"), normal((4, 40)), "float32", moment_of(inputs_of(40))
    )
    assert all(torch.equal(fresh[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("algorithm", CALIBRATED)
def test_transposed_layers_give_the_transposed_result(algorithm: str) -> None:
    """GPT-2's matrices lie the other way round, their inputs do not."""
    weight, statistics = normal((24, 40)), {"m": statistics_of((24, 40))}
    choice = parse_choice(f"quantize bits=3 group_size=8 algorithm={algorithm}")
    found = []
    for transposed in (False, True):
        member = Member(module="m", shape=(24, 40), dtype="float32", transposed=transposed)
        site = Site(name="m", kind="linear", block=0, members=(member,))
        parameters = {"m.weight": weight.T.contiguous() if transposed else weight}
        stored = encode_site(site, choice, parameters, statistics)
        found.append((unpack(stored["m.weight_packed"], 3, 40), decode_site(site, choice, stored)["m.weight"]))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1].T)


@pytest.mark.parametrize("algorithm", CALIBRATED)
def test_what_is_not_calibrated_is_refused(algorithm: str) -> None:
    """Without statistics the message names the remedy; embeddings have no inputs to speak of."""
    choice = parse_choice(f"quantize bits=4 algorithm={algorithm}")
    with pytest.raises(PlanError, match="give calibration texts"):
        encode_matrix(choice, normal((4, 8)), "float32")
    site = Site(
        name="embed", kind="embedding", block=None, members=(Member(module="embed", shape=(96, 32), dtype="float32"),)
    )
    assert "use algorithm=search" in str(site_fault(site, choice, targets["paredown"]))
