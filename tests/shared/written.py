"""Plans of every kind of choice, applied to pico models, and what the applied models must compute."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from paredown.compressors.original.checkpoint import config_sha256, load_original, parameters_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.deploy.apply import Applied, apply_plan, encoded
from paredown.deploy.engines.transformers import TorchModel
from paredown.deploy.verify import scored_model
from paredown.space.choice import parse_choice
from paredown.space.layouts import site_fault
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference, PlanFile, choices_of
from paredown.space.site import Inventory
from paredown.space.targets.target import targets

MIXED = (
    "quantize bits=4 group_size=32",
    "cluster clusters=16",
    "quantize bits=8",
    "prune sparsity=0.5 then quantize bits=4",
    "lowrank rank=16 then quantize bits=8",
    "quantize bits=3 group_size=32 symmetric=false",
    "lowrank rank=8",
    "lowrank-residual rank=16 then quantize bits=3 group_size=32",
    "quantize bits=2 group_size=16",
    "cast",
    "quantize bits=5",
    "keep",
)
SYMMETRIC = tuple(
    f"quantize bits={bits} group_size={g}"
    for bits, g in ((2, 32), (3, "channel"), (4, 16), (5, "channel"), (6, 32), (8, 32))
)


def plan_of(inventory: Inventory, target: str, *, drop: int | None, narrow: bool = True) -> Plan:
    """Every kind of choice that the target takes, spread over the model."""
    ring = SYMMETRIC if target == "transformers" else MIXED
    choices = {}
    for index, site in enumerate(inventory.leaves):
        choice = parse_choice("quantize bits=8 group_size=32" if site.kind == "embedding" else ring[index % len(ring)])
        choices[site.name] = parse_choice("cast") if site_fault(site, choice, targets[target]) else choice
    for site in inventory.parents:
        if site.kind == "block" and site.block == drop:
            choices[site.name] = parse_choice("drop")
        elif site.kind == "ffn" and target == "paredown" and narrow:
            choices[site.name] = parse_choice("prune-neurons sparsity=0.4 then quantize bits=4 group_size=channel")
    return Plan.of(inventory, choices)


def file_of(folder: Path, plan: Plan, target: str) -> PlanFile:
    inventory = inventory_of(folder)
    base = BaseModelReference(
        name=str(folder),
        architecture=inventory.architecture,
        config_sha256=config_sha256(folder),
        shapes_sha256=inventory.shapes_sha256(),
    )
    return PlanFile(base_model=base, target=target, choices=choices_of(plan), size_bytes=plan.size_bytes(inventory))


def applied(
    folder: Path, out: Path, target: str, *, drop: int | None = 0, narrow: bool = True
) -> tuple[Applied, Plan, Inventory]:
    inventory = inventory_of(folder)
    plan = plan_of(inventory, target, drop=drop, narrow=narrow)
    return apply_plan(file_of(folder, plan, target), folder, out), plan, inventory


@torch.no_grad()
def scored(folder: Path, plan: Plan, inventory: Inventory, inputs: Tensor) -> Tensor:
    model = load_original(folder)
    reference = scored_model(model, inventory, plan, encoded(inventory, plan, parameters_of(model)))
    return TorchModel(reference, causal=inventory.causal).outputs(inputs)


def tokens() -> Tensor:
    return torch.randint(4, 128, (2, 40), generator=torch.Generator().manual_seed(0))
