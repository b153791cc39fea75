"""For tests of attentions and feed-forward networks: statistics of a pico model, and what a plan's model computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from paredown.compressors.bank.bank import Bank
from paredown.compressors.calibration.collect import collect
from paredown.compressors.original.checkpoint import load_original, parameters_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.deploy.apply import encoded
from paredown.deploy.engines.transformers import TorchModel
from paredown.deploy.verify import scored_model
from paredown.space.choice import Choice, parse_choice
from paredown.space.plan import Plan
from paredown.space.site import Site

TOKENS = torch.randint(4, 128, (4, 40), generator=torch.Generator().manual_seed(0))


def bank_of(folder: Path, work: Path) -> Bank:
    """A bank of a pico model, calibrated on the tokens above."""
    model = load_original(folder)
    statistics = collect(model, inventory_of(folder), TOKENS, torch.ones_like(TOKENS), work / "statistics")
    return Bank(work / "bank", dict(parameters_of(model)), statistics, "key")


def everywhere(folder: Path, choices: Mapping[str, str]) -> Plan:
    """A choice for every site of a kind."""
    inventory = inventory_of(folder)
    made: dict[str, Choice] = {kind: parse_choice(text) for kind, text in choices.items()}
    return Plan.of(inventory, {site.name: made[site.kind] for site in inventory.sites if site.kind in made})


@torch.no_grad()
def states(folder: Path, plan: Plan, bank: Bank) -> Tensor:
    """What the scored model of a plan computes."""
    model, inventory = load_original(folder), inventory_of(folder)
    reference = scored_model(model, inventory, plan, encoded(inventory, plan, bank.parameters, bank.tensors))
    return TorchModel(reference, causal=inventory.causal).outputs(TOKENS)


@torch.no_grad()
def altered(folder: Path, weights: Mapping[str, Tensor]) -> Tensor:
    """What the original computes with other weights of the original's shapes."""
    model, inventory = load_original(folder), inventory_of(folder)
    parameters = dict(model.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)
    return TorchModel(model, causal=inventory.causal).outputs(TOKENS)


def matrices_of(site: Site, bank: Bank) -> list[Tensor]:
    """The original's matrices, ``(out_features, in_features)``."""
    found = []
    for member in site.members:
        weight = bank.parameters[f"{member.module}.weight"].float()
        found.append(weight.T if member.transposed else weight)
    return found


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())
