"""Narrower feed-forward networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pico as families
import pytest
import torch

from paredown.compressors.storage import decode_site, encode_site
from paredown.space.choice import choice_members, parse_choice
from paredown.space.site import Inventory, Site

SILU, GELU = torch.nn.functional.silu, torch.nn.functional.gelu


def feed_forward(name: str, weights: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """The network written out, apart from transformers' code: Llama's gated one, GPT-2's transposed one."""
    at = {key.rpartition("mlp.")[2]: value for key, value in weights.items()}
    if name == "llama":
        neurons = SILU(inputs @ at["gate_proj.weight"].T) * (inputs @ at["up_proj.weight"].T)
        return neurons @ at["down_proj.weight"].T
    neurons = GELU(inputs @ at["c_fc.weight"] + at["c_fc.bias"], approximate="tanh")
    return neurons @ at["c_proj.weight"] + at["c_proj.bias"]


def network(name: str, inventory: Callable[[str], Inventory]) -> tuple[Site, dict[str, torch.Tensor], Any]:
    model = families.build(name)
    site = next(site for site in inventory(name).sites if site.kind == "ffn")
    module = (model.model.layers if name == "llama" else model.transformer.h)[0].mlp
    parameters = dict(model.named_parameters())
    return (
        site,
        {key: parameters[key].detach() for m in site.members for key in (f"{m.module}.weight", f"{m.module}.bias") if key in parameters},
        module,
    )


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_narrower_network_is_the_wide_one_with_those_neurons_silent(name: str, inventory: Callable[[str], Inventory]) -> None:
    """Removing neurons equals setting what reads them to zero; the bias that is added after them stays."""
    site, parameters, module = network(name, inventory)
    inputs = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    choice = parse_choice("prune-neurons sparsity=0.5")
    narrow = decode_site(site, choice, encode_site(site, choice, parameters))
    matrices = [parameters[f"{m.module}.weight"] for m in site.members]
    stay = choice.neurons([matrix.T if m.transposed else matrix for m, matrix in zip(site.members, matrices, strict=True)])
    assert len(stay) == choice_members(site, choice)[-1][1][1] < site.members[-1].shape[1]
    silent = {key: tensor.clone() for key, tensor in parameters.items()}
    reader = site.members[-1]
    gone = torch.ones(reader.shape[1], dtype=torch.bool).index_fill(0, stay, value=False)
    if reader.transposed:
        silent[f"{reader.module}.weight"][gone] = 0
    else:
        silent[f"{reader.module}.weight"][:, gone] = 0
    torch.testing.assert_close(feed_forward(name, narrow, inputs), feed_forward(name, silent, inputs))
    with torch.no_grad():
        torch.testing.assert_close(feed_forward(name, parameters, inputs), module(inputs))


def test_the_weakest_neurons_go() -> None:
    """Importance is the product of the norms; a neuron that nothing reads is the first to go, wherever it stands."""
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(40, 8, generator=generator), torch.randn(8, 40, generator=generator)
    down[:, [0, 7, 39]] = 0
    up[13] = 0
    choice = parse_choice("prune-neurons sparsity=0.1")
    assert sorted(set(range(40)) - set(choice.neurons([up, down]).tolist())) == [0, 7, 13, 39]


@pytest.mark.parametrize(("neurons", "left"), [(64, 32), (96, 32), (128, 64), (86, 43), (3, 2)])
def test_what_is_left_suits_the_groups(neurons: int, left: int) -> None:
    """A multiple of 32 where the network is one, so that the usual groups divide it."""
    assert parse_choice("prune-neurons sparsity=0.5").kept(neurons) == left


def test_removing_nothing_is_refused() -> None:
    """32 of 32 neurons stay: the plan would say something that is not done."""
    assert "removes none of 32 neurons" in str(parse_choice("prune-neurons sparsity=0.5").fault((8, 32)))
