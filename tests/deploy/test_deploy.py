"""The winner made real: what is written is what was predicted, loads, and computes what was scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from paredown.compressors.bank.bank import Bank
from paredown.compressors.original.checkpoint import config_of, config_sha256, load_original, parameters_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.compressors.original.lazy_weights import original_weights
from paredown.deploy import verify_process
from paredown.deploy.apply import Applied, apply_plan, encoded
from paredown.deploy.load import load
from paredown.deploy.verify import Verified, _check, _difference, check_stored, scored_model, verify
from paredown.space.choice import parse_choice
from paredown.space.errors import CheckpointError, OutputError, PlanError, VerificationError
from paredown.space.layouts import site_fault
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference, PlanFile, choices_of
from paredown.space.site import Inventory
from paredown.space.targets.target import targets
from shared import ROOT, structured
from shared.disk import small_disk

Folder = Callable[[str], Path]

FAMILIES = ("llama", "qwen2", "mistral", "gpt2", "opt", "bert")
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
    return verify_process.states(reference, inputs, causal=inventory.causal)


def tokens() -> Tensor:
    return torch.randint(4, 128, (2, 40), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("drop", "narrow"), [(0, True), (None, False)])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_own_layout_computes_what_was_scored(
    pico: Folder, tmp_path: Path, name: str, drop: int | None, narrow: bool
) -> None:
    result, plan, inventory = applied(pico(name), tmp_path / "out", "paredown", drop=drop, narrow=narrow)
    assert result.size_bytes == plan.size_bytes(inventory) < result.original_bytes
    model = load(result.folder, torch.float32)
    logits = verify_process.states(model, tokens(), causal=inventory.causal)
    assert structured.relative(logits, expected := scored(pico(name), plan, inventory, tokens())) < 1e-5
    if inventory.causal:
        assert structured.relative(verify_process.incremental(model, tokens()), logits) < 1e-5
        assert model.generate(tokens()[:, :4], max_new_tokens=3, do_sample=False).shape == (2, 7)
    fast = verify_process.states(load(result.folder), tokens(), causal=inventory.causal).float()
    assert structured.relative(fast, expected) < 0.1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_transformers_loads_what_was_scored(pico: Folder, tmp_path: Path, name: str) -> None:
    result, plan, inventory = applied(pico(name), tmp_path / "out", "transformers")
    assert result.size_bytes == plan.size_bytes(inventory) < result.original_bytes
    check_stored(result.folder, inventory, plan, "transformers")
    config = json.loads((result.folder / "config.json").read_text())
    assert ("quantization_config" in config) == any("quantize" in str(choice) for _, choice in plan.entries)
    model, report = verify_process.load(result.folder, torch.float32, own=False, causal=inventory.causal)
    assert report == {"missing": [], "unexpected": []}
    logits = verify_process.states(model, tokens(), causal=inventory.causal)
    assert structured.relative(logits, scored(pico(name), plan, inventory, tokens())) < 1e-5
    if inventory.causal:
        assert structured.relative(verify_process.incremental(model, tokens()), logits) < 1e-5


STRUCTURES = {
    "paredown": (
        {
            "attention": "prune-heads sparsity=0.5 algorithm=reconstruct",
            "ffn": "prune-neurons sparsity=0.5 algorithm=reconstruct",
        },
        {"attention": "awq then quantize bits=3 algorithm=gptq", "ffn": "awq then quantize bits=3 algorithm=gptq"},
        {"attention": "prune-heads sparsity=0.5 then quantize bits=8", "ffn": "drop"},
    ),
    "transformers": ({"attention": "awq alpha=0.4 then quantize bits=4", "ffn": "awq alpha=0.4 then quantize bits=4"},),
}
"""Choices of attentions and networks; a family that cannot take one keeps it."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("target", "index"), [(target, i) for target, all_of in STRUCTURES.items() for i in range(len(all_of))]
)
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_structures_compute_what_was_scored(pico: Folder, tmp_path: Path, name: str, target: str, index: int) -> None:
    """Narrower and scaled attentions and networks, calibrated: bytes, names, logits, cached decoding and generation."""
    folder, bank = pico(name), structured.bank_of(pico(name), tmp_path)
    inventory = inventory_of(folder)
    wanted = {site.name: parse_choice(STRUCTURES[target][index].get(site.kind, "keep")) for site in inventory.sites}
    plan = Plan.of(
        inventory,
        {n: choice for n, choice in wanted.items() if site_fault(inventory[n], choice, targets[target]) is None},
    )
    plan.check(inventory, targets[target])
    result = apply_plan(file_of(folder, plan, target), folder, tmp_path / "out", tensors_of=bank.tensors)
    assert result.size_bytes == plan.size_bytes(inventory)
    model = load(result.folder, torch.float32)
    logits = verify_process.states(model, tokens(), causal=inventory.causal)
    reference = scored_model(
        load_original(folder), inventory, plan, encoded(inventory, plan, bank.parameters, bank.tensors)
    )
    assert structured.relative(logits, verify_process.states(reference, tokens(), causal=inventory.causal)) < 1e-5
    if inventory.causal:
        assert structured.relative(verify_process.incremental(model, tokens()), logits) < 1e-5
        assert model.generate(tokens()[:, :4], max_new_tokens=3, do_sample=False).shape == (2, 7)


@pytest.mark.parametrize("target", ["paredown", "transformers"])
def test_a_fresh_process_verifies(pico: Folder, tmp_path: Path, target: str) -> None:
    result, plan, inventory = applied(pico("llama"), tmp_path / "out", target)
    verified = verify(result.folder, pico("llama"))
    assert verified.size_bytes == result.size_bytes
    assert verified.difference < 1e-5
    assert verified.incremental_difference is not None and verified.incremental_difference < 1e-5


@pytest.mark.parametrize("digests", [True, False])
def test_a_changed_scale_does_not_verify(digests: bool, pico: Folder, tmp_path: Path) -> None:
    """By the digests of what was written; by the logits where the plan is of before there were any."""
    result, _, _ = applied(pico("llama"), tmp_path / "out", "paredown", drop=None)
    if not digests:
        PlanFile.read(result.folder / "plan.yaml").model_copy(update={"records": None}).write(
            result.folder / "plan.yaml"
        )
    path = result.folder / "model.paredown.safetensors"
    stored = load_file(path)
    scale = next(name for name in stored if "mlp" in name and name.endswith("weight_scale"))
    save_file(stored | {scale: stored[scale] * 1.5}, path)
    with pytest.raises(
        VerificationError, match="are not those that were written" if digests else "logits in float32 differ"
    ):
        verify(result.folder, pico("llama"))


@pytest.mark.parametrize("name", ["difference", "incremental_difference", "fast_difference"])
def test_what_is_no_number_does_not_verify(name: str, tmp_path: Path) -> None:
    """A model that gives NaN is not near the scored one."""
    differences = {"difference": 0.0, "incremental_difference": 0.0, "fast_difference": 0.0}
    sizes = {"folder": tmp_path, "size_bytes": 1, "header_bytes": 1, "tokens": 1}
    _check(Verified(**sizes, **differences), tolerance=1e-4)
    with pytest.raises(VerificationError, match="by nan of the largest"):
        _check(Verified(**sizes, **{**differences, name: float("nan")}), tolerance=1e-4)


def test_a_missing_tensor_neither_verifies_nor_loads(pico: Folder, tmp_path: Path) -> None:
    result, _, _ = applied(pico("llama"), tmp_path / "out", "paredown", drop=None)
    path = result.folder / "model.paredown.safetensors"
    stored = load_file(path)
    save_file({name: value for name, value in stored.items() if name != "model.norm.weight"}, path)
    with pytest.raises(VerificationError, match="first difference: model.norm.weight is missing"):
        verify(result.folder, pico("llama"))
    with pytest.raises(CheckpointError, match="lacks model.norm.weight"):
        load(result.folder)


def test_plain_from_pretrained_refuses_our_own_layout(pico: Folder, tmp_path: Path) -> None:
    result, _, _ = applied(pico("llama"), tmp_path / "out", "paredown", drop=None)
    with pytest.raises(OSError, match="model.safetensors"):
        AutoModelForCausalLM.from_pretrained(result.folder)
    with pytest.raises(CheckpointError, match="compressed already"):
        config_of(result.folder)


def test_a_bfloat16_original_keeps_its_bytes(pico: Folder, tmp_path: Path) -> None:
    load_original(pico("llama")).to(torch.bfloat16).save_pretrained(tmp_path / "bf16")
    for target in ("paredown", "transformers"):
        out = tmp_path / target
        result, plan, inventory = applied(tmp_path / "bf16", out, target, drop=1)
        logits = verify_process.states(load(out, torch.float32), tokens(), causal=True)
        assert result.size_bytes == plan.size_bytes(inventory)
        assert structured.relative(logits, scored(tmp_path / "bf16", plan, inventory, tokens())) < 1e-5


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


def test_no_difference_from_nothing_is_no_difference() -> None:
    """Where every logit is zero, in the model that was scored and in the one that was written."""
    zeros = torch.zeros(2, 3)
    assert _difference(zeros, zeros) == 0
    assert _difference(zeros + 1, zeros) > 1


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
