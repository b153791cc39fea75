"""NormalFloat4."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from paredown.compressors.bank.encoding import decode_matrix, encode_matrix
from paredown.compressors.model.kernels import kernel_of, runnable
from paredown.compressors.numerics.bit_packing import unpack
from paredown.compressors.rounding.grid import roundings
from paredown.space.choice import parse_choice
from paredown.space.layouts import matrix_fault, site_fault
from paredown.space.site import Member, Site
from paredown.space.targets.target import targets

# Dettmers et al., 2023, arXiv 2305.14314, appendix: "NormalFloat 4-bit data type".
PUBLISHED = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]
CHOICE = parse_choice("quantize bits=4 group_size=16 algorithm=nf4")


def normal(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.1


def test_the_levels_are_the_published_ones() -> None:
    """All sixteen, in their order."""
    assert list(roundings["nf4"].levels or ()) == PUBLISHED


def test_the_nearest_level_is_taken() -> None:
    """Each code is the level nearest to the weight's share of its group's largest; the scale is bfloat16."""
    weight = normal((8, 64))
    stored = encode_matrix(CHOICE, weight, "float32")
    scale = weight.view(8, 4, 16).abs().amax(-1).to(torch.bfloat16)
    assert torch.equal(stored["weight_scale"], scale)
    values = torch.tensor(PUBLISHED) * scale.float().repeat_interleave(16, 1).unsqueeze(-1)
    nearest = (values - weight.unsqueeze(-1)).abs().argmin(-1)
    assert torch.equal(unpack(stored["weight_packed"], 4, 64).long(), nearest)
    assert torch.equal(decode_matrix(CHOICE, stored, (8, 64)), values.gather(-1, nearest.unsqueeze(-1)).squeeze(-1))


def test_every_level_and_zero_are_exact() -> None:
    """Weights that are levels of a scale that bfloat16 holds come back as they are; a group of zeros is zeros."""
    weight = torch.tensor([PUBLISHED, [0.0] * 16]) * 0.5
    assert torch.equal(decode_matrix(CHOICE, encode_matrix(CHOICE, weight, "float32"), (2, 16)), weight)


def test_normal_weights_lose_less_than_on_even_steps() -> None:
    """What the levels are made for: against even steps over the same range."""
    weight, errors = normal((64, 256)), []
    for algorithm in ("nf4", "round-to-nearest"):
        choice = parse_choice(f"quantize bits=4 group_size=64 algorithm={algorithm}")
        errors.append(
            float((decode_matrix(choice, encode_matrix(choice, weight, "float32"), (64, 256)) - weight).square().sum())
        )
    assert errors[0] < 0.95 * errors[1]


@pytest.mark.parametrize(
    ("knobs", "remedy"), [("bits=3", "use bits=4"), ("bits=4 symmetric=false", "use symmetric=true")]
)
def test_other_grids_are_refused(knobs: str, remedy: str) -> None:
    """There is one table, of four bits, around zero."""
    assert remedy in str(matrix_fault(parse_choice(f"quantize {knobs} algorithm=nf4"), (8, 64)))


def test_it_saves_on_disk_only() -> None:
    """No integer kernel knows its levels: it runs as a dense layer, and transformers takes none of it."""
    choice = parse_choice("quantize bits=4 group_size=64 algorithm=nf4")
    assert choice.storage.storage_only
    assert kernel_of(choice, (16, 64)) == "dense"
    stored = encode_matrix(choice, normal((16, 64)), "float32")
    layer = runnable(choice, stored, (16, 64), None, torch.bfloat16)
    assert isinstance(layer, nn.Linear)
    assert torch.equal(layer.weight, decode_matrix(choice, stored, (16, 64)).to(torch.bfloat16))
    site = Site(name="m", kind="linear", block=0, members=(Member(module="m", shape=(16, 64), dtype="float32"),))
    assert site_fault(site, choice, targets["paredown"]) is None
    assert "cannot load nf4 codes" in str(site_fault(site, choice, targets["transformers"]))
