"""Uniform grids."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from paredown.compressors.bank.encoding import decode_matrix, encode_matrix
from paredown.compressors.numerics.bit_packing import unpack
from paredown.space.choice import Choice, parse_choice
from paredown.space.errors import PlanError
from paredown.space.layouts import matrix_fault, site_fault
from paredown.space.site import Member, Site
from paredown.space.statistics import Statistics
from paredown.space.targets.target import targets
from shared import strategies
from shared.correlated import statistics_of


@given(st.one_of(strategies.quantize, strategies.calibrated), strategies.matrices())
def test_values_lie_on_the_grid_that_is_stated(choice: Choice, weight: torch.Tensor) -> None:
    """Each value is (code - zero) * scale with the stored scale and zero of its group, codes in [0, 2**bits)."""
    shape = (weight.shape[0], weight.shape[1])
    assume(matrix_fault(choice, shape) is None)
    knobs = choice.model_dump()
    stored = encode_matrix(choice, weight, "float32", statistics_of(shape))
    decoded = decode_matrix(choice, stored, shape)
    group = shape[1] if knobs["group_size"] == "channel" else knobs["group_size"]
    codes = unpack(stored["weight_packed"], knobs["bits"], shape[1])
    assert codes.min() >= 0 and codes.max() < 2 ** knobs["bits"]
    assert stored["weight_scale"].isfinite().all()
    assert (stored["weight_scale"] != 0).all()
    own_group = torch.arange(shape[1]) // group
    scale = stored["weight_scale"].float()[:, own_group]
    zero = 2 ** (knobs["bits"] - 1) if knobs["symmetric"] else stored["weight_zero_point"].int()[:, own_group]
    assert torch.equal(decoded, (codes - zero) * scale)


@given(st.one_of(strategies.quantize, strategies.calibrated), strategies.matrices())
def test_what_lies_on_the_grid_stays_there(choice: Choice, weight: torch.Tensor) -> None:
    """Quantizing a second time with the scales of the first changes nothing: each value is the nearest to itself."""
    shape = (weight.shape[0], weight.shape[1])
    assume(matrix_fault(choice, shape) is None)
    stored = encode_matrix(choice, weight, "float32", statistics_of(shape))
    decoded = decode_matrix(choice, stored, shape)
    knobs = choice.model_dump()
    group = shape[1] if knobs["group_size"] == "channel" else knobs["group_size"]
    scale = stored["weight_scale"].float().repeat_interleave(group, 1)
    zero = (
        2 ** (knobs["bits"] - 1)
        if knobs["symmetric"]
        else stored["weight_zero_point"].int().repeat_interleave(group, 1)
    )
    again = ((decoded / scale + zero).round().clamp(0, 2 ** knobs["bits"] - 1) - zero) * scale
    assert torch.equal(again, decoded)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("symmetric", ["true", "false"])
@pytest.mark.parametrize("power", [1, 3])
def test_search_is_no_worse_than_round_to_nearest(bits: int, symmetric: str, power: int) -> None:
    """The fitted scales lose less in all than the ranges of the largest weights, tails heavy or not."""
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) ** power
    errors = []
    for algorithm in ("search", "round-to-nearest"):
        choice = parse_choice(f"quantize bits={bits} group_size=32 symmetric={symmetric} algorithm={algorithm}")
        decoded = decode_matrix(choice, encode_matrix(choice, weight, "float32"), (64, 64))
        errors.append(float((decoded - weight).square().sum()))
    assert errors[0] <= errors[1]
    assert bits > 4 or errors[0] < 0.97 * errors[1]


@pytest.mark.parametrize("symmetric", ["", " symmetric=false"])
def test_a_row_is_rounded_as_if_it_were_alone(symmetric: str) -> None:
    """Also where the rows are too many to be fitted at once; with an importance of every weight, and with none."""
    choice = parse_choice(f"quantize bits=3 group_size=32{symmetric}")
    generator = torch.Generator().manual_seed(0)
    weight, importance = torch.randn(1100, 64, generator=generator), torch.rand(1100, 64, generator=generator)
    for known in (None, importance):

        def decoded(rows: slice, known: torch.Tensor | None = known) -> torch.Tensor:
            part = weight[rows]
            statistics = Statistics(importance=None if known is None else known[rows])
            return decode_matrix(choice, encode_matrix(choice, part, "float32", statistics), (len(part), 64))

        whole = decoded(slice(None))
        for row in (0, 511, 512, 1023, 1024, 1099):
            assert torch.equal(whole[row : row + 1], decoded(slice(row, row + 1)))


def test_the_nearest_code_is_taken() -> None:
    """On the grid of the chosen scale no other code is nearer."""
    choice = parse_choice("quantize bits=3 group_size=16")
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    stored = encode_matrix(choice, weight, "float32")
    decoded = decode_matrix(choice, stored, (8, 32))
    grid = (torch.arange(8) - 4) * stored["weight_scale"].float().repeat_interleave(16, 1).unsqueeze(-1)
    nearest = (grid - weight.unsqueeze(-1)).abs().amin(-1)
    torch.testing.assert_close((decoded - weight).abs(), nearest, rtol=1e-5, atol=1e-6)


def test_a_group_that_does_not_divide_is_refused_with_those_that_do() -> None:
    """The message names what would fit."""
    assert matrix_fault(parse_choice("quantize bits=4 group_size=64"), (8, 172)) == (
        "group_size 64 does not divide in_features 172; use 43, 86, 172, channel"
    )


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        *(
            (f"bits={bits}", f"quantize: bits: expected one of 2, 3, 4, 5, 6, 8, got {bits} ")
            for bits in (-1, 0, 1, 7, 9, 16)
        ),
        ("bits=4 group_size=0", "group_size.*greater than or equal to 1"),
        ("bits=4 group_size=-64", "group_size.*greater than or equal to 1"),
    ],
)
def test_a_knob_that_no_matrix_can_take_is_refused_when_it_is_read(knobs: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        parse_choice(f"quantize {knobs}")


@pytest.mark.parametrize(
    ("choice", "member", "reason"),
    [
        ("quantize bits=4 symmetric=false", {}, "zero points"),
        ("quantize bits=4", {"class_name": "Conv1D"}, "a quantized Conv1D"),
        ("quantize bits=4", {"tied": ("embed",)}, "tied"),
        ("quantize bits=4", {}, None),
    ],
)
def test_transformers_takes_what_it_really_loads(choice: str, member: dict[str, object], reason: str | None) -> None:
    """What would load as random weights is refused before; paredown takes it all."""
    site = Site(
        name="m", kind="linear", block=0, members=(Member(module="m", shape=(8, 32), dtype="float32", **member),)
    )
    fault = site_fault(site, parse_choice(choice), targets["transformers"])
    assert fault is None if reason is None else reason in str(fault)
    assert site_fault(site, parse_choice(choice), targets["paredown"]) is None
