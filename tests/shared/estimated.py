"""A pico model with a space, a bank and statistics, as estimators find it."""

from __future__ import annotations

from pathlib import Path

import torch

from paredown.compressors.bank.bank import Bank
from paredown.compressors.calibration.collect import collect
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.original.checkpoint import load_original, parameters_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.evaluators.sequences import Sequences
from paredown.search.sensitivity.measurements import Evidence
from paredown.space.space import Space
from paredown.space.study_file import SpaceFile
from paredown.space.targets.target import targets

CHOICES: dict[str, list[str]] = {
    "linear": ["keep", *(f"quantize bits={bits} group_size=32" for bits in (2, 3, 4, 6))],
    "embedding": ["keep", "quantize bits=4 group_size=32"],
    "ffn": ["drop", "prune-neurons sparsity=0.5"],
    "attention": ["drop"],
}
SEQUENCES = Sequences(
    tokens=torch.randint(2, 128, (6, 48), generator=torch.Generator().manual_seed(0)),
    mask=torch.ones(6, 48, dtype=torch.long),
    document=torch.arange(6),
)


def prepared(
    folder: Path, bank: Path, data: Sequences = SEQUENCES, records: Path | None = None
) -> tuple[Space, PlannedModel]:
    """Space and model; statistics lie in the bank's folder, records too unless another is given."""
    model = load_original(folder)
    parameters = {name: tensor.detach() for name, tensor in parameters_of(model).items()}
    space = Space.build(
        inventory_of(folder), targets["paredown"], SpaceFile.model_validate({"choices": CHOICES, "max_drops": 1})
    )
    statistics = collect(model, space.inventory, data.tokens, data.mask, bank / "statistics")
    return space, PlannedModel(model, space.inventory, Bank(records or bank, parameters, statistics, "test"))


def evidence_of(space: Space, planned: PlannedModel, facts: Path | None = None) -> Evidence:
    return Evidence(space, planned, planned.bank, SEQUENCES, facts)
