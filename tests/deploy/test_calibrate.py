"""Plans with calibrated choices, applied: from a study's bank or from the plan's own texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import paredown
from docs.generate.what_runs_where import runs_as
from paredown.compressors.original.find_sites import inventory_of
from paredown.deploy.calibrate import ready
from paredown.space.choice import methods, parse_choice
from paredown.space.errors import PlanError, StudyError
from paredown.space.plan import Plan
from paredown.space.plan_file import Calibration, PlanFile
from paredown.space.targets.target import targets
from shared import pico as families
from shared import toys, written

Folder = Callable[[str], Path]
GPTQ = "quantize bits=3 group_size=16 algorithm=gptq"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.write_text(tmp_path_factory.mktemp("texts") / "text.txt", toys.passages(60))


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of six blocks, wide enough for the fast kernels."""
    folder = tmp_path_factory.mktemp("six")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=families.VOCABULARY, hidden_size=64, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=128, tie_word_embeddings=True, max_position_embeddings=128,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.to(torch.bfloat16).save_pretrained(folder)
    families.tokenizer().save_pretrained(folder)
    return folder


def file_of(folder: Path, plan: Plan, texts: Path, *, in_order: bool = True, sha256: str = "0") -> PlanFile:
    calibration = Calibration(
        data=[str(texts)], tokens=1024, sequence_length=32, seed=0, sha256=sha256, in_order=in_order
    )
    return written.file_of(folder, plan, "paredown").model_copy(update={"calibration": calibration})


def uniform(folder: Path, choice: str = GPTQ) -> Plan:
    inventory = inventory_of(folder)
    return Plan.of(inventory, {site.name: parse_choice(choice) for site in inventory.leaves if site.kind == "linear"})


def mixed(folder: Path) -> Plan:
    """Every method that something runs faster for, in one plan."""
    block = "model.layers.{}"
    gptq = "algorithm=gptq"
    choices = {
        "model.embed_tokens": "quantize bits=8 group_size=32",
        block.format(0) + ".self_attn.q_proj": f"quantize bits=4 group_size=32 {gptq}",
        block.format(0) + ".self_attn.k_proj": f"quantize bits=8 {gptq}",
        block.format(0) + ".self_attn.v_proj": "quantize bits=5 group_size=32 algorithm=coordinate-descent",
        block.format(0) + ".self_attn.o_proj": f"lowrank rank=16 algorithm=whitened then quantize bits=8 {gptq}",
        block.format(0)
        + ".mlp.up_proj": f"lowrank-residual rank=8 algorithm=whitened then quantize bits=3 group_size=32 {gptq}",
        block.format(0) + ".mlp.down_proj": "cast",
        block.format(1)
        + ".self_attn": f"prune-heads sparsity=0.5 algorithm=reconstruct then quantize bits=4 group_size=32 {gptq}",
        block.format(1)
        + ".mlp": f"prune-neurons sparsity=0.25 algorithm=reconstruct then quantize bits=4 group_size=32 {gptq}",
        block.format(2) + ".self_attn": f"awq then quantize bits=4 group_size=32 {gptq}",
        block.format(2) + ".mlp": "awq then quantize bits=3 group_size=32",
        block.format(3): "drop",
        block.format(4) + ".self_attn": "drop",
        block.format(4) + ".mlp.gate_proj": "quantize bits=2 group_size=32 symmetric=false algorithm=gptq",
        block.format(5) + ".mlp": "drop",
        block.format(5) + ".self_attn.v_proj": "quantize bits=4 group_size=64 symmetric=false algorithm=hqq",
    }
    inventory = inventory_of(folder)
    sites = {site.name.split(".{")[0] if site.structured else site.name: site.name for site in inventory.sites}
    return Plan.of(inventory, {sites[name]: parse_choice(text) for name, text in choices.items()})


def test_one_plan_of_every_runnable_method(six: Path, texts: Path, tmp_path: Path) -> None:
    """Bytes to the byte, and in a fresh process the logits of the scored model, in one pass and token by token."""
    plan = mixed(six)
    used = {step.method for _, choice in plan.entries for step in choice.steps}
    storage_only = {step.method for _, choice in plan.entries for step in choice.steps if step.storage.storage_only}
    assert not storage_only
    assert all(not runs_as(choice).startswith("storage") for _, choice in plan.entries)
    assert used == set(methods) - {"prune", "cluster", "vector-quantize", "keep"}
    applied, verified = paredown.apply(file_of(six, plan, texts), six, tmp_path / "out", bank=tmp_path / "bank")
    assert verified is not None
    assert applied.size_bytes == plan.size_bytes(inventory_of(six)) == verified.size_bytes
    assert verified.difference < 1e-5
    assert verified.incremental_difference is not None
    assert verified.incremental_difference < 1e-5
    model = paredown.load(tmp_path / "out", torch.float32)
    assert model.config.num_hidden_layers == 5
    text = paredown.generate(tmp_path / "out", "ab", tokens=8)
    assert len(text.split(" ")) == len("ab") + 8


@pytest.mark.parametrize("in_order", [False, True])
def test_a_bank_changes_nothing(pico: Folder, texts: Path, tmp_path: Path, in_order: bool) -> None:
    """Compressed here, from a bank that is made, and from one that is there: the same file."""
    file = file_of(pico("llama"), uniform(pico("llama")), texts, in_order=in_order)
    for name, bank in (("here", None), ("made", tmp_path / "bank"), ("there", tmp_path / "bank")):
        paredown.apply(file, pico("llama"), tmp_path / name, check=name == "here", bank=bank)
    here, made, there = (
        load_file(tmp_path / name / "model.paredown.safetensors") for name in ("here", "made", "there")
    )
    assert here.keys() == made.keys() == there.keys()
    assert all(torch.equal(here[key], made[key]) and torch.equal(here[key], there[key]) for key in here)


def test_order_and_texts_decide_what_is_stored(pico: Folder, texts: Path, tmp_path: Path) -> None:
    """In order gives other codes than each matrix for itself; other texts others, and that is told."""
    other = toys.write_text(tmp_path / "other.txt", toys.passages(50, seed=7))
    plan = uniform(pico("llama"))
    stored = {}
    for name, in_order, data in (("order", True, None), ("alone", False, None), ("other", True, [str(other)])):
        file = file_of(pico("llama"), plan, texts, in_order=in_order)
        applied, _ = paredown.apply(
            file, pico("llama"), tmp_path / name, check=False, bank=tmp_path / "bank", data=data
        )
        assert applied.other_texts
        stored[name] = load_file(tmp_path / name / "model.paredown.safetensors")[
            "model.layers.1.mlp.down_proj.weight_packed"
        ]
    assert not torch.equal(stored["order"], stored["alone"])
    assert not torch.equal(stored["order"], stored["other"])


def test_the_texts_of_the_plan_are_recognised(pico: Folder, texts: Path, tmp_path: Path) -> None:
    plan = uniform(pico("llama"))
    file = file_of(pico("llama"), plan, texts)
    with ready(file, pico("llama"), bank=tmp_path / "bank") as found:
        assert found.other_texts
    from paredown.compressors.original.checkpoint import config_of
    from paredown.deploy.calibrate import _texts

    assert file.calibration is not None
    sha256 = _texts(file.calibration, None, pico("llama"), config_of(pico("llama"))).sha256()
    with ready(file_of(pico("llama"), plan, texts, sha256=sha256), pico("llama"), bank=tmp_path / "bank") as found:
        assert not found.other_texts


def test_plans_that_no_text_decides_on_need_none(pico: Folder) -> None:
    inventory = inventory_of(pico("llama"))
    plan = uniform(pico("llama"), "quantize bits=4 group_size=16")
    plan.check(inventory, targets["paredown"])
    file = file_of(pico("llama"), plan, Path("nowhere.txt"))
    with ready(file, pico("llama")) as found:
        assert found.tensors_of is None


def test_missing_texts_are_told(pico: Folder, texts: Path, tmp_path: Path) -> None:
    plan = uniform(pico("llama"))
    nameless = file_of(pico("llama"), plan, texts).model_copy(update={"calibration": None})
    with pytest.raises(PlanError, match="the plan has calibrated choices and names no calibration texts"):
        paredown.apply(nameless, pico("llama"), tmp_path / "out")
    with pytest.raises(StudyError, match=r"gone.txt cannot be read .*; give a text file"):
        paredown.apply(file_of(pico("llama"), plan, tmp_path / "gone.txt"), pico("llama"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
