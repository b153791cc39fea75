"""Pico models that take plans, with their weights in memory or streamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from paredown.compressors.bank.bank import Bank
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.original.checkpoint import config_of, load_original, parameters_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.compressors.original.lazy_weights import open_original
from paredown.deploy.engines.transformers import TorchModel

Folder = Callable[[str], Path]
NAMES = ("llama", "gpt2", "opt", "bert", "qwen2")
TOKENS = torch.randint(2, 128, (2, 20), generator=torch.Generator().manual_seed(0))


def planned_model(folder: Path, bank: Path) -> PlannedModel:
    model = load_original(folder)
    parameters = {name: tensor.detach() for name, tensor in parameters_of(model).items()}
    return PlannedModel(model, inventory_of(folder), Bank(bank, parameters))


def streamed_model(folder: Path, bank: Path) -> PlannedModel:
    model, weights = open_original(folder, config_of(folder), memory_bytes=1)
    return PlannedModel(model, inventory_of(folder), Bank(bank, weights, cache_bytes=0))


@torch.no_grad()
def states(planned: PlannedModel) -> Tensor:
    return TorchModel(planned.model, causal=planned.inventory.causal).outputs(TOKENS)
