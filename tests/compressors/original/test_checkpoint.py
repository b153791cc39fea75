"""Model folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from paredown.compressors.original.checkpoint import config_of, load_original, resolve, stored_layout
from paredown.space.errors import CheckpointError
from shared import pico as families


@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_the_original_is_loaded_as_it_was_saved(name: str, pico: Callable[[str], Path]) -> None:
    """In float32, in evaluation mode, nothing to train, every parameter equal."""
    model = load_original(pico(name))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    expected = dict(families.build(name).named_parameters())
    for key, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, expected[key]), key


def copy(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    return target


def test_missing_weights_are_refused_and_named(pico: Callable[[str], Path], tmp_path: Path) -> None:
    """They would be random."""
    name = "model.layers.1.mlp.up_proj.weight"

    def remove(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    with pytest.raises(CheckpointError, match=f"lacks weights of LlamaForCausalLM: {name}"):
        load_original(copy(pico("llama"), tmp_path, remove))


def test_weights_of_another_shape_are_refused(pico: Callable[[str], Path], tmp_path: Path) -> None:
    """One line, and no traceback of transformers."""

    def cut(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 32)

    with pytest.raises(CheckpointError, match="model.layers.1.mlp.up_proj.weight"):
        load_original(copy(pico("llama"), tmp_path, cut))


def test_what_is_no_model_folder_is_refused(tmp_path: Path, pico: Callable[[str], Path]) -> None:
    """Nothing there, no configuration, a shard that the index names and that is not there, a compressed model."""
    with pytest.raises(CheckpointError, match="no model folder .*give a folder"):
        resolve(str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="has no config.json"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_bytes((pico("llama") / "config.json").read_bytes())
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    )
    with pytest.raises(CheckpointError, match="lacks model-00001-of-00002.safetensors"):
        stored_layout(tmp_path)
    (tmp_path / "paredown.json").write_text("{}")
    with pytest.raises(CheckpointError, match="compressed already; give the original"):
        config_of(tmp_path)


def test_shards_are_one_model(tmp_path: Path, pico: Callable[[str], Path]) -> None:
    """A model in several files is the same model."""
    families.build("llama").save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert stored_layout(tmp_path) == stored_layout(pico("llama"))
