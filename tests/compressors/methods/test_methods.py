"""Laws of every registered method and of compositions: a newcomer is covered the day it is registered."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.compressors.bank.encoding import decode_matrix, encode_matrix
from paredown.space.choice import Choice, methods, parse_choice
from paredown.space.layouts import matrix_fault, matrix_layout
from paredown.space.tensors import total_bytes
from shared import correlated, strategies
from shared.offered import offered, offered_to
from tests.compressors.bank.test_encoding import layout_of, site_and_parameters

SHAPES = [(24, 172), (1, 172), (32, 64), (7, 3)]
MATRIX_CHOICES = list(dict.fromkeys([*offered("linear"), *offered("embedding")]))


def normal(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def encoded(choice: Choice, weight: torch.Tensor, dtype: str) -> dict[str, torch.Tensor]:
    """Stored with those statistics of correlated inputs that the choice asks for."""
    return encode_matrix(
        choice, weight, dtype, correlated.statistics_of((weight.shape[0], weight.shape[1])).only(choice.needs)
    )


def fitting(choice: Choice) -> list[tuple[int, int]]:
    shapes = [shape for shape in [*SHAPES, (64, 128), (96, 172), (64, 64)] if matrix_fault(choice, shape) is None]
    assert shapes, f"no shape of this test fits {choice}; add one"
    return shapes


def test_every_method_is_under_the_laws() -> None:
    """Each registered method has examples: it offers choices or is written into one of the compositions."""
    whole = [offered_to(site_and_parameters(kind)[0]) for kind in ("ffn", "attention")]
    assert {choice.method for choices in [MATRIX_CHOICES, *whole] for choice in choices} == set(methods)


def test_every_method_says_what_it_is() -> None:
    """A docstring, a description for each knob, and the registered name."""
    for name in methods:
        method = methods[name]
        assert method.method == name
        assert method.__doc__
        assert all(field.description for field in method.model_fields.values()), name


@pytest.mark.parametrize("choice", MATRIX_CHOICES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_stored_are_bytes_predicted(choice: Choice, dtype: str) -> None:
    """Names, types and shapes are those that the budget was counted from; no input is modified; twice is the same."""
    for shape in fitting(choice):
        weight = normal(shape)
        before = weight.clone()
        stored = encoded(choice, weight, dtype)
        assert torch.equal(weight, before)
        assert layout_of(stored) == matrix_layout(choice, shape, dtype)
        assert sum(tensor.nbytes for tensor in stored.values()) == total_bytes(matrix_layout(choice, shape, dtype))
        again = encoded(choice, before, dtype)
        assert all(torch.equal(again[name], tensor) for name, tensor in stored.items())
        kept = {name: tensor.clone() for name, tensor in stored.items()}
        decoded = decode_matrix(choice, stored, shape)
        assert decoded.shape == shape
        assert decoded.dtype == torch.float32
        assert torch.isfinite(decoded).all()
        assert all(torch.equal(kept[name], tensor) for name, tensor in stored.items())


@given(st.one_of(strategies.linear_choices, strategies.calibrated), strategies.matrices())
def test_what_is_stored_is_predicted_for_any_matrix(choice: Choice, weight: torch.Tensor) -> None:
    """The same for choices and matrices that nobody thought of: constant, tiny, heavy-tailed, one row, one column."""
    shape = (weight.shape[0], weight.shape[1])
    assume(matrix_fault(choice, shape) is None)
    stored = encoded(choice, weight, "bfloat16")
    assert layout_of(stored) == matrix_layout(choice, shape, "bfloat16")
    decoded = decode_matrix(choice, stored, shape)
    assert torch.isfinite(decoded).all()
    assert decoded.abs().max() <= 2 * weight.abs().max() * (1 + min(shape) ** 0.5) + 1e-12


@pytest.mark.parametrize("choice", MATRIX_CHOICES, ids=str)
def test_zero_stays_zero(choice: Choice) -> None:
    """A matrix of zeros, and a row of zeros in another, come back as zeros: no scale is 0/0."""
    shape = fitting(choice)[0]
    assert decode_matrix(choice, encoded(choice, torch.zeros(shape), "float32"), shape).abs().max() < 1e-20


@pytest.mark.parametrize("choice", MATRIX_CHOICES, ids=str)
def test_a_file_brings_back_the_same_matrix(choice: Choice, tmp_path: Path) -> None:
    """Safetensors takes what is stored as it is (contiguous, unshared), and decoding needs nothing else."""
    shape = fitting(choice)[-1]
    stored = encoded(choice, normal(shape), "bfloat16")
    save_file(stored, tmp_path / "m.safetensors")
    loaded = load_file(tmp_path / "m.safetensors")
    assert torch.equal(decode_matrix(choice, loaded, shape), decode_matrix(choice, stored, shape))


def error(choice: str, weight: torch.Tensor) -> float:
    made = parse_choice(choice)
    shape = (weight.shape[0], weight.shape[1])
    return float(
        (decode_matrix(made, encode_matrix(made, weight, "float32", correlated.statistics_of(shape)), shape) - weight)
        .square()
        .sum()
    )


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("quantize group_size=16 bits={}", (2, 3, 4, 5, 6, 8)),
        ("quantize group_size=32 symmetric=false bits={}", (2, 3, 4, 5, 6, 8)),
        ("quantize algorithm=round-to-nearest bits={}", (2, 3, 4, 5, 6, 8)),
        ("quantize symmetric=false algorithm=hqq bits={}", (2, 3, 4, 5, 6, 8)),
        ("cluster clusters={}", (2, 3, 5, 8, 16, 64, 256)),
        ("lowrank rank={}", (1, 2, 5, 17, 32)),
        ("lowrank then quantize bits=8 rank={}", (1, 2, 5, 17)),
        ("lowrank-residual then quantize bits=8 rounds=1 rank={}", (1, 2, 5, 17)),
        ("prune sparsity={}", (0.9, 0.5, 0.3, 0.05)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_more_never_hurts(form: str, values: tuple[float, ...], seed: int) -> None:
    """The error does not grow with more bits, values, rank or weights."""
    first, _, rest = form.partition(" then quantize bits=8")
    forms = [(first + rest).format(value) + (" then quantize bits=8" if "then" in form else "") for value in values]
    errors = [error(choice, normal((32, 64), seed)) for choice in forms]
    assert all(finer <= coarser * (1 + 1e-6) + 1e-9 for coarser, finer in pairwise(errors)), errors


@pytest.mark.parametrize(
    ("choice", "size_bytes"),
    [
        ("keep", 2 * 24 * 172),
        ("cast", 2 * 24 * 172),
        ("quantize bits=3 group_size=43", 4 * 24 * 17 + 2 * 24 * 4 + 16),
        ("quantize bits=8 symmetric=false", 24 * 172 + 2 * 24 + 24),
        ("cluster clusters=16", 24 * 88 + 4 * 16 + 2 * 24),
        ("cluster clusters=17", 24 * 108 + 4 * 17 + 2 * 24),
        ("prune sparsity=0.5", 24 * 22 + 2 * 24 * 86),
        ("lowrank rank=8", 2 * 8 * (24 + 172)),
        ("lowrank rank=8 then quantize bits=8", (24 * 8 + 2 * 24 + 16) + (8 * 172 + 2 * 8 + 16)),
    ],
)
def test_bytes_are_those_worked_out_by_hand(choice: str, size_bytes: int) -> None:
    """For 24 rows of 172: prediction and file could be wasteful together, and would still agree."""
    assert total_bytes(matrix_layout(parse_choice(choice), (24, 172), "bfloat16")) == size_bytes
