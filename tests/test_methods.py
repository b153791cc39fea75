"""Laws of every registered method and of compositions: a newcomer is covered the day it is registered."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import correlated
import pytest
import strategies
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.compressors.storage import decode_matrix, decode_site, encode_matrix, encode_site
from paredown.space.choice import Choice, methods, parse_choice
from paredown.space.layouts import matrix_fault, matrix_layout, site_fault, site_layout
from paredown.space.site import Member, Site
from paredown.space.target import targets
from paredown.space.tensors import TensorSpec, total_bytes

SHAPES = [(24, 172), (1, 172), (32, 64), (7, 3)]
COMPOSITIONS = [
    "lowrank rank=3",
    "lowrank rank=1 then quantize bits=8",
    "lowrank rank=3 then lowrank rank=2 then cast",
    "lowrank rank=2 then prune sparsity=0.5 then cluster clusters=5",
    "lowrank rank_fraction=0.4 algorithm=whitened then quantize bits=4 algorithm=gptq",
    "lowrank-residual rank=1 then quantize bits=3",
    "lowrank-residual rank=3 factor_bits=16 algorithm=whitened rounds=2 then quantize bits=4 group_size=43 algorithm=gptq",
    "lowrank-residual rank=2 rounds=0 then lowrank rank=1",
    "vector-quantize centroids=9 dimensions=4",
    "vector-quantize centroids=40",
    "vector-quantize centroids=2 dimensions=8",
    "prune sparsity=0.5",
    "prune sparsity=0.6 then quantize bits=3 symmetric=false",
    "prune sparsity=0.3 then lowrank rank=1",
    "quantize bits=4 group_size=43",
    "quantize bits=5 group_size=4 symmetric=false algorithm=round-to-nearest",
    "quantize bits=6 algorithm=round-to-nearest",
    "quantize bits=4 group_size=16 algorithm=nf4",
    "quantize bits=4 algorithm=nf4",
    "quantize bits=3 symmetric=false algorithm=hqq",
    "quantize bits=2 group_size=4 symmetric=false algorithm=hqq",
    *(
        f"quantize bits={bits} group_size={group} symmetric={symmetric} algorithm={algorithm}"
        for algorithm in ("gptq", "coordinate-descent")
        for bits, group, symmetric in [(2, 4, "false"), (3, 16, "true"), (5, 43, "true"), (8, "channel", "false")]
    ),
    "lowrank rank=2 then quantize bits=4 algorithm=gptq",
    "prune sparsity=0.5 pattern=2:4",
    "prune sparsity=0.5 algorithm=sparsegpt",
    "prune sparsity=0.75 pattern=1:4 algorithm=wanda then quantize bits=4",
    "prune sparsity=0.5 pattern=4:8 algorithm=sparsegpt then cluster clusters=5 weighting=fisher",
    "cluster clusters=5 rows=3 weighting=inputs",
    "cluster clusters=9 weighting=fisher",
    "cluster clusters=16 rows=1",
    "cluster clusters=2",
    "cluster clusters=3",
    "cluster clusters=256",
]
FFN = [
    "prune-neurons sparsity=0.5",
    "prune-neurons sparsity=0.25 then lowrank rank=2 then quantize bits=4",
    "prune-neurons sparsity=0.9 then cast",
    "prune-neurons sparsity=0.5 algorithm=activation then quantize bits=4 algorithm=gptq",
    "prune-neurons sparsity=0.5 algorithm=reconstruct",
    "awq alpha=0.5",
    "awq then quantize bits=4 group_size=16",
    "awq then quantize bits=3 algorithm=gptq",
]
ATTENTION = [
    "prune-heads sparsity=0.5",
    "prune-heads sparsity=0.5 algorithm=activation then cast",
    "prune-heads sparsity=0.5 algorithm=reconstruct then quantize bits=4 algorithm=gptq",
    "awq alpha=0.5",
    "awq then quantize bits=4 group_size=16",
]
WRITTEN = {"ffn": FFN, "attention": ATTENTION, "block": ["drop"]}


def offered(kind: str) -> list[Choice]:
    """What the methods put into the default space, for usual and for awkward shapes, and the compositions."""
    members = [
        Member(module="m", shape=shape, dtype=dtype) for shape in [(64, 128), (96, 172), (64, 64)] for dtype in ("float32", "bfloat16")
    ]
    offers = [
        choice for name in methods for member in members for choice in methods[name].offers(member, kind) if kind in methods[name].kinds
    ]
    return list(dict.fromkeys([*offers, *map(parse_choice, COMPOSITIONS if kind == "linear" else ())]))


def offered_to(site: Site) -> list[Choice]:
    """The same for a site whose structure may change."""
    offers = [choice for name in methods if site.kind in methods[name].kinds for choice in methods[name].site_offers(site)]
    return list(dict.fromkeys([*offers, *map(parse_choice, WRITTEN[site.kind])]))


MATRIX_CHOICES = list(dict.fromkeys([*offered("linear"), *offered("embedding")]))


def normal(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def encoded(choice: Choice, weight: torch.Tensor, dtype: str) -> dict[str, torch.Tensor]:
    """Stored with those statistics of correlated inputs that the choice asks for."""
    return encode_matrix(choice, weight, dtype, correlated.statistics_of((weight.shape[0], weight.shape[1])).only(choice.needs))


def layout_of(tensors: dict[str, torch.Tensor]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in tensors.items()}


def fitting(choice: Choice) -> list[tuple[int, int]]:
    shapes = [shape for shape in [*SHAPES, (64, 128), (96, 172), (64, 64)] if matrix_fault(choice, shape) is None]
    assert shapes, f"no shape of this test fits {choice}; add one"
    return shapes


def test_every_method_is_under_the_laws() -> None:
    """Each registered method has examples: it offers choices or is written into a composition above."""
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
        (decode_matrix(made, encode_matrix(made, weight, "float32", correlated.statistics_of(shape)), shape) - weight).square().sum()
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


def site_and_parameters(kind: str, *, transposed: bool = False, bias: bool = False) -> tuple[Site, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "ffn": [("up", (64, 32)), ("down", (32, 64))],
        "attention": [("q", (32, 32)), ("k", (16, 32)), ("v", (16, 32)), ("o", (32, 32))],
        "linear": [("a", (24, 172)), ("b", (8, 172))],
    }[kind]
    parameters, members = {}, []
    for name, shape in shapes:
        weight = torch.randn(shape, generator=generator)
        parameters[f"{name}.weight"] = weight.T.contiguous() if transposed else weight
        if bias:
            parameters[f"{name}.bias"] = torch.randn(shape[0], generator=generator)
        spec = TensorSpec("bfloat16", (shape[0],)) if bias else None
        members.append(Member(module=name, shape=shape, dtype="bfloat16", transposed=transposed, bias=spec))
    site = Site(name="site", kind=kind, block=0, members=tuple(members))
    if site.structured:
        parameters["norm.weight"] = torch.randn(32, generator=generator)
        norm = {"norm.weight": TensorSpec("bfloat16", (32,))}
        site = replace(site, norm=norm, homogeneous=True, heads=(4, 2) if kind == "attention" else None)
    return site, parameters


def stored_modules(site: Site, choice: Choice) -> set[str]:
    """Of a site that is left out, the last matrix alone is said to be zero."""
    return {member.module for member in (site.members[-1:] if choice.method == "drop" else site.members)}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["linear", "ffn", "attention"])
def test_sites_store_what_was_predicted(kind: str, bias: bool, transposed: bool) -> None:
    """For whole sites: biases and narrower networks included, whatever the orientation; the parameters are not modified."""
    site, parameters = site_and_parameters(kind, transposed=transposed, bias=bias)
    statistics = {member.module: correlated.statistics_of(member.shape) for member in site.members}
    before = {name: tensor.clone() for name, tensor in parameters.items()}
    offers = offered_to(site) if site.structured else offered(kind)
    choices = [choice for choice in offers if site_fault(site, choice, targets["paredown"]) is None]
    assert len(choices) > 2
    for choice in choices:
        stored = encode_site(site, choice, parameters, statistics)
        changed = site.norm if choice.method == "awq" else {}
        assert layout_of(stored) == {**site_layout(site, choice), **changed}, str(choice)
        decoded = decode_site(site, choice, stored)
        assert all(torch.isfinite(tensor).all() for tensor in decoded.values())
        left = {name for name in parameters if name.split(".")[0] in stored_modules(site, choice)}
        assert decoded.keys() == left | changed.keys()
        if kind == "linear":
            assert all(tensor.shape == parameters[name].shape for name, tensor in decoded.items())
        assert all(torch.equal(before[name], tensor) for name, tensor in parameters.items())


def test_transposed_layers_give_the_transposed_result() -> None:
    """GPT-2 stores its matrices the other way round; the choice sees (out_features, in_features) all the same."""
    plain, parameters = site_and_parameters("linear", transposed=False, bias=True)
    turned, turned_parameters = site_and_parameters("linear", transposed=True, bias=True)
    statistics = {member.module: correlated.statistics_of(member.shape) for member in plain.members}
    for choice in offered("linear"):
        if site_fault(plain, choice, targets["paredown"]):
            continue
        stored = encode_site(plain, choice, parameters, statistics)
        turned_stored = encode_site(turned, choice, turned_parameters, statistics)
        assert all(torch.equal(stored[name], turned_stored[name]) for name in stored)
        decoded, turned_decoded = decode_site(plain, choice, stored), decode_site(turned, choice, turned_stored)
        for name, tensor in decoded.items():
            assert torch.equal(turned_decoded[name], tensor.T if tensor.ndim == 2 else tensor)


def test_a_dropped_block_stores_nothing() -> None:
    """Drop leaves no tensor, and takes no step after it."""
    block = Site(name="layers.0", kind="block", block=0, members=())
    assert site_layout(block, parse_choice("drop")) == {}
    assert encode_site(block, parse_choice("drop"), {}) == {}
    assert "leave the 'then' out" in str(site_fault(block, parse_choice("drop then cast"), targets["paredown"]))


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
