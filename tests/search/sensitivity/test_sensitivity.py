"""What each choice is predicted to cost, and what of it is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from paredown.compressors.bank import bank
from paredown.compressors.model.planned_model import PlannedModel
from paredown.evaluators.quality import Teacher
from paredown.evaluators.sequences import Sequences
from paredown.search.sensitivity.estimators import single_site
from paredown.search.sensitivity.measurement_cache import Facts
from paredown.search.sensitivity.measurements import Evidence, Sensitivity
from paredown.search.sensitivity.sensitivity import estimated, estimated_tokens, stored_losses
from paredown.space.choice import KEEP, parse_choice
from paredown.space.plan import Plan
from paredown.space.space import Space
from shared.estimated import SEQUENCES, evidence_of, prepared

Folder = Callable[[str], Path]


def predicted(space: Space, planned: PlannedModel) -> Sensitivity:
    return estimated("single-site", evidence_of(space, planned))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_predictions_rank_sites_and_choices_as_measured(pico: Folder, tmp_path: Path, name: str) -> None:
    """More bits are never predicted worse at one site; what is predicted for a site alone follows what is measured."""
    space, planned = prepared(pico(name), tmp_path)
    losses = predicted(space, planned)
    for site in space.inventory.leaves:
        if site.kind == "linear":
            falling = [
                losses[site.name, c] for c in sorted(space.options[site.name], key=lambda c: getattr(c, "bits", 16))
            ]
            assert falling == sorted(falling, reverse=True)
    teacher = Teacher(planned.model, SEQUENCES, causal=space.inventory.causal)
    pairs = [
        (s, c)
        for s, c in losses
        if c != KEEP and space.inventory[s].kind == "linear" and getattr(c, "bits", 8) in (2, 3, 4)
    ]
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
    """Mean squared norm of the change of a layer's outputs over its inputs, of a transposed matrix too.

    Padding is left out.
    """
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
        evidence = Evidence(space, planned, planned.bank, data)
        assert evidence.output_error(site, choice) == pytest.approx(float(outputs.square().sum(1).mean()), rel=1e-3)


class Passes:
    """How many times a model ran."""

    def __init__(self, planned: PlannedModel) -> None:
        self.count = 0
        planned.model.register_forward_hook(self._one)

    def _one(self, *_: object) -> None:
        self.count += 1


def test_what_is_on_disk_is_not_measured_again(pico: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the same study, nor for another that shares the bank.

    More choices cost only their own passes, and are predicted as if all had been measured together; other texts, other
    records or another estimator are other questions.
    """
    few, planned = prepared(pico("llama"), tmp_path)
    blocks = {site.name: () for site in few.inventory.parents}
    linear = {site.name: few.options[site.name][:3] for site in few.inventory.leaves}  # the reference among them
    some = Space(inventory=few.inventory, target=few.target, options={**few.options, **linear, **blocks}, max_drops=1)
    passes = Passes(planned)

    def losses(
        folder: str, space: Space, name: str = "single-site", data: Sequences = SEQUENCES
    ) -> tuple[Sensitivity, int]:
        before = passes.count
        inputs = [data.sha256(), "weights"]
        found = stored_losses(tmp_path / folder / "sensitivity.json", name, inputs, space, planned, planned.bank, data)
        return found, passes.count - before

    first, cost = losses("study", some)
    assert cost > len(some.inventory.leaves)
    assert losses("study", some) == (first, 0)
    (tmp_path / "study" / "sensitivity.json").unlink()
    assert losses("study", some) == (first, 0)
    assert losses("another", some) == (first, 0)
    more, added = losses("another", few)
    new = len(set(single_site.measured(few)) - set(single_site.measured(some)))
    started = 4  # the original's predictions, whether it may start late, and the states before the second block
    assert 0 < new <= added <= new + started < cost + new
    assert more == estimated("single-site", Evidence(few, planned, planned.bank, SEQUENCES))
    assert losses("another", few, data=SEQUENCES.head(3))[1] > 0
    assert losses("another", few, name="single-site-full")[1] > 0
    stored = json.loads((tmp_path / "another" / "sensitivity.json").read_text())
    assert (stored["estimator"], stored["backward_tokens"]) == ("single-site-full", 0)
    assert 0 < stored["forward_tokens"] <= estimated_tokens("single-site-full", few, SEQUENCES.tokens.numel())
    planned.bank.calibration = "other"  # data-free records stay the same
    assert losses("third", few)[1] == 0
    monkeypatch.setattr(bank, "VERSION", bank.VERSION + 1)
    assert losses("fourth", few)[1] > 0


def test_two_searches_that_share_a_file_of_facts_keep_both_findings(tmp_path: Path) -> None:
    """Each read the file before the other wrote; of what both measured, the later writer's number stays."""
    path = tmp_path / "facts.json"
    one, other = Facts(path), Facts(path)
    assert [one.get("a", lambda: 1.0), one.get("both", lambda: 2.0)] == [1.0, 2.0]
    assert [other.get("b", lambda: 3.0), other.get("both", lambda: 4.0)] == [3.0, 4.0]
    one.write()
    other.write()
    third = Facts(path)
    assert [third.get(key, lambda: -1.0) for key in ("a", "b", "both")] == [1.0, 3.0, 4.0]
    assert (third.found, third.made) == (3, 0)


def test_facts_that_cannot_be_read_or_kept_are_made_anew(pico: Folder, tmp_path: Path) -> None:
    space, planned = prepared(pico("llama"), tmp_path)
    path = tmp_path / "facts.json"
    first = estimated("single-site", evidence_of(space, planned, path))
    path.write_text(path.read_text()[:100])
    assert estimated("single-site", evidence_of(space, planned, path)) == first
    assert len(json.loads(path.read_text())["facts"]) > len(space.inventory.leaves)
    assert estimated("single-site", evidence_of(space, planned, path / "below a file.json")) == first
