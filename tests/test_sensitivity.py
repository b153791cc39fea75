"""What each choice is predicted to cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from paredown.compressors.bank import Bank
from paredown.compressors.calibration import collect
from paredown.compressors.checkpoint import load_original, parameters_of
from paredown.compressors.planned import PlannedModel
from paredown.compressors.sites import inventory_of
from paredown.evaluators.quality import Teacher
from paredown.evaluators.sequences import Sequences
from paredown.search.sensitivity import Sensitivity, output_error, single_site
from paredown.space.choice import KEEP, parse_choice
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import SpaceFile
from paredown.space.target import targets

Folder = Callable[[str], Path]
BITS = (2, 3, 4, 6, 8)
CHOICES = {"linear": ["keep", *(f"quantize bits={bits} group_size=32" for bits in BITS)]}
SEQUENCES = Sequences(
    tokens=torch.randint(2, 128, (6, 48), generator=torch.Generator().manual_seed(0)),
    mask=torch.ones(6, 48, dtype=torch.long),
    document=torch.arange(6),
)


def prepared(folder: Path, bank: Path, data: Sequences = SEQUENCES) -> tuple[Space, PlannedModel]:
    model = load_original(folder)
    parameters = {name: tensor.detach() for name, tensor in parameters_of(model).items()}
    space = Space.build(inventory_of(folder), targets["paredown"], SpaceFile.model_validate({"choices": CHOICES, "max_drops": 1}))
    statistics = collect(model, space.inventory, data.tokens, data.mask, bank / "statistics")
    return space, PlannedModel(model, space.inventory, Bank(bank, parameters, statistics, "test"))


def predicted(space: Space, planned: PlannedModel) -> Sensitivity:
    return single_site(space, planned, planned.bank, SEQUENCES)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_predictions_rank_sites_and_choices_as_measured(pico: Folder, tmp_path: Path, name: str) -> None:
    """Every choice of the space has a prediction; kept is nothing; more bits are never predicted worse at one site; what is
    predicted for a site alone follows what is measured."""
    space, planned = prepared(pico(name), tmp_path)
    losses = predicted(space, planned)
    assert planned.plan == Plan()
    assert set(losses) == {(site.name, choice) for site in space.inventory.sites for choice in space.options[site.name]}
    assert all(losses[site, choice] == 0 for site, choice in losses if choice == KEEP)
    assert all(loss >= 0 for loss in losses.values())
    for site in space.inventory.leaves:
        if site.kind == "linear":
            falling = [losses[site.name, c] for c in sorted(space.options[site.name], key=lambda c: getattr(c, "bits", 16))]
            assert falling == sorted(falling, reverse=True)
    teacher = Teacher(planned.model, SEQUENCES, causal=space.inventory.causal)
    pairs = [(s, c) for s, c in losses if c != KEEP and space.inventory[s].kind == "linear" and getattr(c, "bits", 8) in (2, 3, 4)]
    measured = []
    for site_name, choice in pairs:
        planned.swap(Plan.of(space.inventory, {site_name: choice}))
        measured.append(teacher.measure(planned.model).mean)
    planned.swap(Plan())
    assert spearmanr([losses[pair] for pair in pairs], measured).statistic > 0.9
    assert np.median(np.abs(np.log([losses[pair] / m for pair, m in zip(pairs, measured, strict=True)]))) < 0.4


def test_the_same_texts_give_the_same_predictions(pico: Folder, tmp_path: Path) -> None:
    """Whatever plan was in place, and whether the bank was filled or not."""
    space, planned = prepared(pico("llama"), tmp_path)
    first = predicted(space, planned)
    planned.swap(Plan.of(space.inventory, {"model.layers.0": parse_choice("drop")}))
    assert predicted(space, planned) == first


@torch.no_grad()
def test_the_output_error_is_that_of_the_outputs(pico: Folder, tmp_path: Path) -> None:
    """Mean squared norm of the change of a layer's outputs over its inputs, of a transposed matrix too; padding is left out."""
    for name, site_name in (("llama", "model.layers.1.mlp.down_proj"), ("gpt2", "transformer.h.1.mlp.c_proj")):
        mask = (torch.arange(48) < torch.tensor([48, 20, 48, 33, 48, 17])[:, None]).long()
        data = Sequences(tokens=SEQUENCES.tokens * mask, mask=mask, document=SEQUENCES.document)
        space, planned = prepared(pico(name), tmp_path / name, data)
        seen: list[torch.Tensor] = []
        module = planned.model.get_submodule(site_name)
        hook = module.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        planned.model(input_ids=data.tokens, use_cache=False)
        hook.remove()
        inputs = seen[0][mask.bool()]
        choice, site = parse_choice("quantize bits=3"), space.inventory[site_name]
        change = planned.bank.decoded(site, choice)[f"{site_name}.weight"] - module.weight
        outputs = inputs @ (change if site.members[0].transposed else change.T)
        assert output_error(site, choice, planned.bank) == pytest.approx(float(outputs.square().sum(1).mean()), rel=1e-3)
