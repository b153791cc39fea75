"""Walking a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from paredown.compressors.original.find_sites import inventory_of
from paredown.space.errors import CheckpointError
from paredown.space.plan import Plan
from paredown.space.site import Inventory, joint_name, modules_of
from shared import pico as families

Get = Callable[[str], Inventory]
LEAVES_PER_BLOCK = {"llama": 7, "qwen2": 7, "mistral": 7, "gpt2": 4, "opt": 6, "bert": 6}


@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_every_parameter_is_counted_once(name: str, pico: Callable[[str], Path], inventory: Get) -> None:
    """The inventory's tensors are those of the file, name by name, and no two sites own the same one."""
    stored = {}
    with safe_open(pico(name) / "model.safetensors", "pt") as file:
        for key in file.keys():  # noqa: SIM118 - safe_open is not a mapping
            stored[key] = file.get_tensor(key)
    found = inventory(name)
    assert found.original_bytes == sum(tensor.nbytes for tensor in stored.values())
    assert {key: spec.shape for key, spec in found.original_layout().items()} == {
        key: tuple(t.shape) for key, t in stored.items()
    }
    assert found.parameters == sum(tensor.numel() for tensor in stored.values())
    modules = [member.module for site in found.leaves for member in site.members]
    assert len(modules) == len(set(modules))
    rests = [key for site in found.sites for key in site.rest] + list(found.rest)
    assert len(rests) == len(set(rests))
    assert Plan().layout(found).keys() == stored.keys()


@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_blocks_cover_their_leaves_and_networks_theirs(name: str, inventory: Get) -> None:
    """Two blocks, each with one feed-forward network; what a block covers is what it holds."""
    found = inventory(name)
    blocks = [site for site in found.sites if site.kind == "block"]
    networks = [site for site in found.sites if site.kind == "ffn"]
    assert [site.block for site in blocks] == [site.block for site in networks] == list(range(families.LAYERS))
    for block, network in zip(blocks, networks, strict=True):
        assert block.covers == tuple(site.name for site in found.leaves if site.block == block.block)
        assert len(block.covers) == LEAVES_PER_BLOCK[name]
        assert set(network.covers) < set(block.covers)
        *makers, reader = network.members
        assert {member.shape[0] for member in makers} == {reader.shape[1]}
        assert block.rest


STRUCTURE = {
    "llama": ({"input_layernorm.weight"}, {"post_attention_layernorm.weight"}, True, True, (4, 2)),
    "qwen2": ({"input_layernorm.weight"}, {"post_attention_layernorm.weight"}, True, True, (4, 2)),
    "mistral": ({"input_layernorm.weight"}, {"post_attention_layernorm.weight"}, True, True, (4, 2)),
    "gpt2": ({"ln_1.weight", "ln_1.bias"}, {"ln_2.weight", "ln_2.bias"}, False, False, None),
    "opt": (
        {"self_attn_layer_norm.weight", "self_attn_layer_norm.bias"},
        {"final_layer_norm.weight", "final_layer_norm.bias"},
        True, True, None,
    ),
    "bert": (set(), set(), False, False, (4, 4)),
}  # fmt: skip
"""Norms of attention and network, scale-keeping values and neurons, and heads are those of the families' papers."""


@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_what_is_known_of_attentions_and_networks(name: str, inventory: Get) -> None:
    """Each block has an attention, a network and the block itself, in this order.

    Pre-norm families have norms, and separate heads are named.
    """
    found = inventory(name)
    assert [site.kind for site in found.parents] == ["attention", "ffn", "block"] * families.LAYERS
    for attention, network, block in zip(found.parents[::3], found.parents[1::3], found.parents[2::3], strict=True):
        assert not set(attention.covers) & set(network.covers)
        assert {*attention.covers, *network.covers} == set(block.covers)
        assert attention.members[-1].shape[0] == network.members[-1].shape[0] == 32
        norms = tuple({key.removeprefix(f"{block.name}.") for key in site.norm} for site in (attention, network))
        assert (*norms, attention.homogeneous, network.homogeneous, attention.heads) == STRUCTURE[name]
        assert all(site.norm.items() <= block.rest.items() for site in (attention, network))


def test_a_norm_after_the_sum_is_not_one_before_it(tmp_path: Path) -> None:
    """OPT-350m's norms follow the sum: what reads them is not the attention alone; and a GELU keeps no scale."""
    folder = families.save("opt", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"do_layer_norm_before": False, "activation_function": "gelu"})
    )
    found = inventory_of(folder)
    assert not any(site.norm for site in found.parents)
    assert not any(site.homogeneous for site in found.parents if site.kind == "ffn")


@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_tied_tensors_are_one_member(name: str, inventory: Get) -> None:
    """A head that shares the embedding's tensor is named there and has no site of its own; an untied head has one."""
    found = inventory(name)
    (embedding,) = [site for site in found.leaves if site.kind == "embedding"]
    (member,) = embedding.members
    assert member.shape == (families.VOCABULARY, 32)
    if name in ("qwen2", "mistral"):
        assert member.tied == ()
        assert found["lm_head"].block is None
    else:
        assert member.tied == (("cls.predictions.decoder",) if name == "bert" else ("lm_head",))
        assert all("lm_head" not in site.name and "decoder" not in site.name.split(".")[-1] for site in found.leaves)


@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_orientation_and_kind_are_seen(name: str, inventory: Get) -> None:
    """GPT-2's layers are transposed, with their bias as long as the out_features; only causal models are causal."""
    found = inventory(name)
    members = [member for site in found.leaves if site.kind == "linear" for member in site.members]
    assert all(member.transposed == (name == "gpt2") for member in members)
    assert all(member.bias is None or member.bias.shape == (member.shape[0],) for member in members)
    assert found.causal == (name in families.CAUSAL_NAMES)


def test_ties_make_one_site_of_several(pico: Callable[[str], Path]) -> None:
    """What a runtime fuses takes one choice; bytes and coverage stay what they were."""
    ties = [("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")]
    tied, free = inventory_of(pico("llama"), ties=ties), inventory_of(pico("llama"))
    names = [site.name for site in tied.leaves if site.block == 0]
    layer = "model.layers.0"
    assert names == [
        f"{layer}.self_attn.{{q,k,v}}_proj",
        f"{layer}.self_attn.o_proj",
        f"{layer}.mlp.{{gate,up}}_proj",
        f"{layer}.mlp.down_proj",
    ]
    assert tied.original_layout() == free.original_layout()
    assert any(site.kind == "ffn" for site in tied.sites)


@pytest.mark.parametrize(
    ("modules", "name"),
    [
        (["lm_head"], "lm_head"),
        (["a.0.q_proj", "a.0.k_proj", "a.0.v_proj"], "a.0.{q,k,v}_proj"),
        (["h.0.mlp.c_fc", "h.0.mlp.c_proj"], "h.0.mlp.{c_fc,c_proj}"),
        (["l.0.fc1", "l.0.fc2"], "l.0.{fc1,fc2}"),
        (["e.0.intermediate.dense", "e.0.output.dense"], "e.0.{intermediate,output}.dense"),
        (["q", "k"], "{q,k}"),
        (["a.proj", "a.up_proj"], "a.{proj,up_proj}"),
    ],
)
def test_joint_names_are_short_and_tell_the_members(modules: list[str], name: str) -> None:
    """Braces where the names differ; written out, they are the members again."""
    assert joint_name(modules) == name
    if "{" in name:
        head, _, rest = name.partition("{")
        inner, _, tail = rest.partition("}")
        assert [head + part + tail for part in inner.split(",")] == modules


def test_a_fine_tune_has_the_same_shapes_and_another_model_has_not(tmp_path: Path, inventory: Get) -> None:
    """The fingerprint depends on names and shapes alone: neither on the weights nor on their dtype."""
    tuned = inventory_of(families.save("llama", tmp_path, dtype=torch.bfloat16, seed=7))
    assert tuned.shapes_sha256() == inventory("llama").shapes_sha256()
    assert tuned.original_bytes * 2 == inventory("llama").original_bytes
    assert len({inventory(name).shapes_sha256() for name in families.PICO_NAMES}) == len(families.PICO_NAMES)


def test_a_broken_folder_is_refused_with_the_remedy(tmp_path: Path, pico: Callable[[str], Path]) -> None:
    """Truncated weights, none at all, no architecture: one line each, before anything is loaded."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((pico("llama") / name).read_bytes())
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file.*download it again"):
        inventory_of(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no model.safetensors"):
        inventory_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="names no architecture"):
        inventory_of(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json"):
        inventory_of(tmp_path)


def test_what_an_encoder_is_not_scored_by_is_no_site(inventory: Callable[[str], Inventory]) -> None:
    """Its final hidden states say nothing of a head behind them, which stays as it is and is counted.

    A causal head is a site.
    """
    bert, qwen = inventory("bert"), inventory("qwen2")
    assert all(site.block is not None for site in bert.leaves if site.kind == "linear")
    assert "cls.predictions.transform.dense.weight" in bert.rest
    assert [site.name for site in qwen.leaves if site.block is None and site.kind == "linear"] == ["lm_head"]


def test_ties_with_a_name_in_common_are_one(pico: Callable[[str], Path]) -> None:
    """What a study ties and what the target ties hold together."""
    ties = [("q_proj", "o_proj"), ("gate_proj", "up_proj"), ("q_proj", "k_proj", "v_proj")]
    inventory = inventory_of(pico("llama"), ties=ties)
    sites = [site for site in inventory.leaves if site.block == 0]
    assert [site.kind for site in inventory.parents if site.block == 0] == [
        "ffn",
        "block",
    ]  # all of the attention is a leaf
    assert [sorted(member.module.rpartition(".")[2] for member in site.members) for site in sites] == [
        ["k_proj", "o_proj", "q_proj", "v_proj"],
        ["gate_proj", "up_proj"],
        ["down_proj"],
    ]
    assert all(modules_of(site.name) == [member.module for member in site.members] for site in sites)
