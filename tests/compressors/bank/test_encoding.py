"""Whole sites, as every registered method stores them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from paredown.compressors.bank.encoding import decode_site, encode_site
from paredown.space.choice import Choice, parse_choice
from paredown.space.layouts import site_fault, site_layout
from paredown.space.site import Member, Site
from paredown.space.targets.target import targets
from paredown.space.tensors import TensorSpec
from shared import correlated
from shared.offered import offered, offered_to


def layout_of(tensors: dict[str, torch.Tensor]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


def site_and_parameters(
    kind: str, *, transposed: bool = False, bias: bool = False
) -> tuple[Site, dict[str, torch.Tensor]]:
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
    """Modules with a stored tensor; a dropped site stores only its last matrix, as zero."""
    return {member.module for member in (site.members[-1:] if choice.method == "drop" else site.members)}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["linear", "ffn", "attention"])
def test_sites_store_what_was_predicted(kind: str, bias: bool, transposed: bool) -> None:
    """For whole sites: biases and narrower networks included, whatever the orientation.

    The parameters are not modified.
    """
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
