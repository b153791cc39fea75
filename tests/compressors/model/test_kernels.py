"""The layers that compute with what is stored, and what they hold in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paredown.compressors.bank.encoding import decode_matrix, encode_matrix
from paredown.compressors.model.assemble import assemble, kernel_of, resident_bytes, runnable
from paredown.compressors.original.checkpoint import config_of, load_original, parameters_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.deploy.apply import encoded
from paredown.space.choice import KEEP, parse_choice
from paredown.space.plan import Plan
from shared import structured


@pytest.mark.parametrize(
    ("text", "kernel"),
    [
        ("quantize bits=4 group_size=64", "int4"),
        ("quantize bits=3 group_size=32 symmetric=false", "int4"),
        ("quantize bits=4 group_size=32 symmetric=false", "int4"),
        ("quantize bits=2", "int4"),
        ("quantize bits=8", "int8"),
        ("quantize bits=5", "int8"),
        ("quantize bits=8 group_size=64", "dense"),
        ("lowrank rank=32 then quantize bits=8", "lowrank-32-int8-int8"),
        ("lowrank rank=7", "lowrank-7-dense-dense"),
        ("lowrank rank_fraction=0.5 then quantize bits=8", "lowrank-32-int8-int8"),
        ("lowrank-residual rank=16 then quantize bits=4 group_size=64", "residual-16-int8-int8-int4"),
        ("lowrank-residual rank=7 factor_bits=16 then quantize bits=8", "residual-7-dense-dense-int8"),
        (
            "lowrank-residual rank=16 then lowrank rank=7 then quantize bits=8",
            "residual-16-int8-int8-lowrank-7-int8-dense",
        ),
        ("lowrank-residual rank=16 then cluster clusters=5", "dense"),
        ("cluster clusters=5", "dense"),
        ("keep", "dense"),
    ],
)
@pytest.mark.parametrize("rows", [1, 5, 64, 65, 130])
def test_kernels_compute_the_decoded_matrix(text: str, kernel: str, rows: int) -> None:
    """In bfloat16 nearly, in float32 exactly what the scored matrix computes, by the kernel that is stated."""
    shape, choice, generator = (80, 128), parse_choice(text), torch.Generator().manual_seed(rows)
    stored = encode_matrix(choice, torch.randn(shape, generator=generator), "float32")
    bias, x = torch.randn(80, generator=generator), torch.randn(2, rows, 128, generator=generator)
    x = x[:1] if rows == 1 else x
    assert kernel_of(choice, shape) == kernel
    expected = x.bfloat16().float() @ decode_matrix(choice, stored, shape).T + bias
    found = runnable(choice, stored, shape, bias, torch.bfloat16)(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert structured.relative(found.float(), expected) < 0.01
    exact = runnable(choice, stored, shape, bias, torch.float32)(x.bfloat16().float())
    assert structured.relative(exact, expected) < 1e-5


@pytest.mark.parametrize("shape", [(64, 172), (20, 64)])
def test_shapes_that_a_kernel_cannot_take_are_dense(shape: tuple[int, int]) -> None:
    """The int8 kernel reads beyond rows of 172 columns, and the int4 kernel takes rows by 16."""
    assert kernel_of(parse_choice("quantize bits=8" if shape[1] == 172 else "quantize bits=4"), shape) == "dense"


def test_fewer_bits_take_less_memory(pico: Callable[[str], Path]) -> None:
    folder = pico("llama")
    inventory, config, parameters = inventory_of(folder), config_of(folder), parameters_of(load_original(folder))

    def resident(choice: str) -> int:
        plan = Plan.of(
            inventory, {site.name: parse_choice(choice) for site in inventory.leaves if site.kind == "linear"}
        )
        return resident_bytes(assemble(config, inventory, plan, encoded(inventory, plan, parameters), torch.bfloat16))

    four, eight, kept = resident("quantize bits=4 group_size=32"), resident("quantize bits=8"), resident(str(KEEP))
    assert four < eight < kept
    assert kept == pytest.approx(inventory.original_bytes / 2, rel=0.01)
