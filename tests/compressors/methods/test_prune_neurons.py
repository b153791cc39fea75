"""Narrower feed-forward networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paredown.compressors.bank.encoding import decode_site, encode_site
from paredown.space.choice import parse_choice
from paredown.space.layouts import choice_members
from paredown.space.site import Inventory, Member, Site
from paredown.space.statistics import NO_STATISTICS, Statistics
from shared import correlated, structured
from shared import pico as families

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
        {
            key: parameters[key].detach()
            for m in site.members
            for key in (f"{m.module}.weight", f"{m.module}.bias")
            if key in parameters
        },
        module,
    )


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_narrower_network_is_the_wide_one_with_those_neurons_silent(
    name: str, inventory: Callable[[str], Inventory]
) -> None:
    """Removing neurons equals setting what reads them to zero; the bias that is added after them stays."""
    site, parameters, module = network(name, inventory)
    inputs = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    choice = parse_choice("prune-neurons sparsity=0.5")
    narrow = decode_site(site, choice, encode_site(site, choice, parameters))
    matrices = [parameters[f"{m.module}.weight"] for m in site.members]
    stay = choice.neurons(
        [matrix.T if m.transposed else matrix for m, matrix in zip(site.members, matrices, strict=True)], NO_STATISTICS
    )
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
    assert sorted(set(range(40)) - set(choice.neurons([up, down], NO_STATISTICS).tolist())) == [0, 7, 13, 39]


@pytest.mark.parametrize(("neurons", "left"), [(64, 32), (96, 32), (128, 64), (86, 43), (3, 2)])
def test_what_is_left_suits_the_groups(neurons: int, left: int) -> None:
    """A multiple of 32 where the network is one, so that the usual groups divide it."""
    assert parse_choice("prune-neurons sparsity=0.5").kept(neurons) == left


def test_removing_nothing_is_refused() -> None:
    """32 of 32 neurons stay: the plan would say something that is not done."""
    up, down = (
        Member(module=name, shape=shape, dtype="bfloat16") for name, shape in (("up", (32, 8)), ("down", (8, 32)))
    )
    site = Site(name="mlp", kind="ffn", block=0, members=(up, down))
    assert "removes none of 32 neurons" in str(parse_choice("prune-neurons sparsity=0.5").site_fault(site))


def test_neurons_that_are_never_on_go_first() -> None:
    """Neurons matter by what they add to the output, worked out token by token here, whatever their weights."""
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(40, 8, generator=generator), torch.randn(8, 40, generator=generator)
    neurons = torch.randn(100, 40, generator=generator)
    neurons[:, [1, 20]] = 0
    down[:, [1, 20]] *= 100
    added = (neurons[:, None, :] * down).square().sum(1).mean(0)
    known = Statistics(second_moment=neurons.T @ neurons / 100)
    choice = parse_choice("prune-neurons sparsity=0.1 algorithm=activation")
    assert sorted(set(range(40)) - set(choice.neurons([up, down], known).tolist())) == sorted(
        added.argsort()[:4].tolist()
    )


@pytest.mark.parametrize("sparsity", [0.025, 0.2])
def test_neurons_that_say_the_same_are_kept_once(sparsity: float) -> None:
    """With a fitted reader, one of two equal neurons costs nothing and both cost a lot, however strong they are."""
    generator = torch.Generator().manual_seed(0)
    neurons, down = torch.randn(400, 40, generator=generator), torch.randn(8, 40, generator=generator)
    neurons[:, 5] = neurons[:, 9] = 10 * neurons[:, 9]
    known = Statistics(second_moment=neurons.T @ neurons / 400)
    choice = parse_choice(f"prune-neurons sparsity={sparsity} algorithm=reconstruct")
    assert len({5, 9} & set(choice.neurons([torch.ones(40, 8), down], known).tolist())) == 1


def test_neurons_are_chosen_better_where_the_reader_is_fitted() -> None:
    """The removed correlated neurons lose less than those of the smallest outputs, both with the reader fitted."""
    losses: dict[str, list[float]] = {"activation": [], "reconstruct": []}
    for seed in range(8):
        known, reader = (
            correlated.statistics_of((16, 40), seed),
            torch.randn(16, 40, generator=torch.Generator().manual_seed(seed)),
        )
        for algorithm, lost in losses.items():
            stay = parse_choice(f"prune-neurons sparsity=0.3 algorithm={algorithm}").neurons(
                [torch.ones(40, 8), reader], known
            )
            change = torch.zeros_like(reader).index_copy(1, stay, fitted(reader, known["second_moment"], stay)) - reader
            lost.append(float(((change @ known["second_moment"]) * change).sum()))
    assert sum(losses["reconstruct"]) < 0.98 * sum(losses["activation"]), losses


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bert"])
def test_a_pruned_neuron_is_a_silent_one(pico: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    """In whole models with biases, the output stays if nothing reads the removed neurons, or the rest is fitted."""
    folder, outputs = pico(name), {}
    bank = structured.bank_of(folder, tmp_path)
    networks = [site for site in bank_sites(folder) if site.kind == "ffn"]
    for algorithm in ("activation", "reconstruct"):
        choice = parse_choice(f"prune-neurons sparsity=0.5 algorithm={algorithm}")
        silent = {}
        for site in networks:
            matrices, known = structured.matrices_of(site, bank), bank.statistics[site.members[-1].module]
            stay = choice.neurons(matrices, known)
            reader = torch.zeros_like(matrices[-1])
            reader[:, stay] = (
                matrices[-1][:, stay]
                if algorithm == "activation"
                else fitted(matrices[-1], known["second_moment"], stay)
            )
            silent[f"{site.members[-1].module}.weight"] = reader.T if site.members[-1].transposed else reader
        outputs[algorithm] = structured.states(folder, structured.everywhere(folder, {"ffn": str(choice)}), bank)
        assert structured.relative(outputs[algorithm], structured.altered(folder, silent)) < 1e-4
    assert structured.relative(outputs["reconstruct"], outputs["activation"]) > 0.01


def bank_sites(folder: Path) -> tuple[Site, ...]:
    return structured.inventory_of(folder).sites


def fitted(reader: torch.Tensor, moment: torch.Tensor, stay: torch.Tensor) -> torch.Tensor:
    """The update written out, in double precision, with the damping that the method states."""
    damped = moment.double() + 0.001 * moment.double().diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)
    return (reader.double() @ damped[:, stay] @ damped[stay][:, stay].inverse()).float()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_fitting_what_reads_the_others_never_hurts(seed: int, sparsity: float) -> None:
    """The error is at most that with the unfitted reader, and clearly less on correlated neurons."""
    known = correlated.statistics_of((16, 40), seed)
    moment, reader = known["second_moment"], torch.randn(16, 40, generator=torch.Generator().manual_seed(seed))
    choice = parse_choice(f"prune-neurons sparsity={sparsity} algorithm=reconstruct")
    stay = choice.neurons([torch.ones(40, 8), reader], known)

    def error(matrix: torch.Tensor) -> float:
        change = torch.zeros_like(reader).index_copy(1, stay, matrix) - reader
        return float(((change @ moment) * change).sum())

    matrix, left = choice.read(reader, known, stay)
    assert error(matrix) < 0.9 * error(reader[:, stay])
    torch.testing.assert_close(left["second_moment"], moment[stay][:, stay])
    torch.testing.assert_close(left["mean_absolute"], known["mean_absolute"][stay])


def test_neurons_that_are_all_zero_can_be_fitted() -> None:
    """A network that is never on: no division by zero."""
    choice = parse_choice("prune-neurons sparsity=0.5 algorithm=reconstruct")
    matrix, _ = choice.read(torch.ones(4, 8), Statistics(second_moment=torch.zeros(8, 8)), torch.arange(4))
    assert torch.equal(matrix, torch.ones(4, 4))
