"""Apply: which plans and folders it takes, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from paredown.compressors.bank.bank import Bank
from paredown.compressors.original.checkpoint import config_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.compressors.original.lazy_weights import original_weights
from paredown.deploy.apply import apply_plan, encoded
from paredown.space.choice import parse_choice
from paredown.space.errors import OutputError, PlanError, VerificationError
from paredown.space.plan import Plan
from shared import ROOT
from shared.disk import small_disk
from shared.written import applied, file_of, plan_of

Folder = Callable[[str], Path]


def test_a_plan_for_another_model_is_refused_before_a_weight_is_touched(pico: Folder, tmp_path: Path) -> None:
    broken = shutil.copytree(pico("qwen2"), tmp_path / "broken")
    plan = file_of(pico("llama"), Plan(), "paredown")
    with pytest.raises(PlanError, match="the plan was made for LlamaForCausalLM"):
        apply_plan(plan, broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plan_whose_size_was_edited_is_refused(pico: Folder, tmp_path: Path) -> None:
    plan = file_of(pico("llama"), Plan(), "paredown").model_copy(update={"size_bytes": 1})
    with pytest.raises(VerificationError, match="the plan file says 1 bytes"):
        apply_plan(plan, pico("llama"), tmp_path / "out")


def test_only_our_own_folders_are_replaced(pico: Folder, tmp_path: Path) -> None:
    plan, out = file_of(pico("llama"), Plan(), "paredown"), tmp_path / "out"
    out.mkdir()
    (out / "plan.yaml").write_text("theirs")
    with pytest.raises(OutputError, match="not written by paredown"):
        apply_plan(plan, pico("llama"), out)
    assert (out / "plan.yaml").read_text() == "theirs"
    (out / "plan.yaml").unlink()
    first = apply_plan(plan, pico("llama"), out)
    assert apply_plan(plan, pico("llama"), out) == first
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds notes.txt beside"):
        apply_plan(plan, pico("llama"), out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_leaves_nothing_behind(pico: Folder, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="free some space"), small_disk(20_000):
        apply_plan(file_of(pico("llama"), Plan(), "paredown"), pico("llama"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_bank_may_supply_the_tensors(pico: Folder, tmp_path: Path) -> None:
    asked = []

    def nothing(site: object, choice: object) -> Mapping[str, Tensor] | None:
        asked.append(site)
        return None

    plan = plan_of(inventory_of(pico("opt")), "paredown", drop=None)
    apply_plan(file_of(pico("opt"), plan, "paredown"), pico("opt"), tmp_path / "out", tensors_of=nothing)
    assert len(asked) == len(list(plan.decided(inventory_of(pico("opt")))))


def test_blocks_that_depend_on_their_place_are_not_dropped(tmp_path: Path, pico: Folder) -> None:
    folder = shutil.copytree(pico("gpt2"), tmp_path / "gpt2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"scale_attn_by_inverse_layer_idx": True}))
    with pytest.raises(PlanError, match="depend on their position"):
        applied(folder, tmp_path / "out", "transformers")


def test_what_apply_encodes_is_what_the_bank_scored_on_any_number_of_threads(tmp_path: Path) -> None:
    """Apply encodes data-free choices again; sums in two threads could differ from the bank's in their last bits."""
    source = ROOT / "studies" / "models" / "demo"  # wide enough for a product to be shared out
    inventory, parameters = inventory_of(source), original_weights(source, config_of(source))
    site = next(site for site in inventory.leaves if site.kind == "linear")
    choice = parse_choice("lowrank rank=32")
    scored = Bank(tmp_path, parameters).tensors(site, choice)
    torch.set_num_threads(2)
    try:
        written = encoded(inventory, Plan.of(inventory, {site.name: choice}), parameters)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(written[name], tensor) for name, tensor in scored.items())
