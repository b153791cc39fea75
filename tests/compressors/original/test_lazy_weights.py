"""The original's tensors, read lazily."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from paredown.compressors.original.checkpoint import config_of, is_placeholder, load_original, parameters_of
from paredown.compressors.original.lazy_weights import Weights, open_original, original_weights
from paredown.space.errors import CheckpointError
from shared import pico as families

Folder = Callable[[str], Path]
NAME = "model.layers.1.mlp.up_proj.weight"


def weights_of(folder: Path) -> Weights:
    return Weights(folder, config_of(folder))


def changed(source: Path, target: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    shutil.copytree(source, target)
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_weights_are_those_of_the_loaded_model(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    """Every name once, in the same order, as stored, and bit by bit the same in float32.

    The same holds in another process, and for shards.
    """
    whole = families.save(name, tmp_path / "whole", dtype)
    families.build(name).to(dtype).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    expected = parameters_of(load_original(whole))
    for folder in (whole, tmp_path / "shards"):
        weights = weights_of(folder)
        assert list(weights) == list(expected)
        assert len(weights) == len(expected) and not weights.missing
        for found in (weights, pickle.loads(pickle.dumps(weights))):
            for key, tensor in expected.items():
                assert found[key].dtype == dtype
                assert torch.equal(found[key].float(), tensor), key


@pytest.mark.parametrize("change", ["added", "removed"])
def test_the_prefix_of_the_base_model_may_be_missing_or_added(pico: Folder, tmp_path: Path, change: str) -> None:
    def rename(tensors: dict[str, Tensor]) -> None:
        for key in list(tensors):
            value = tensors.pop(key)
            tensors["transformer." + key if change == "added" else key.removeprefix("transformer.")] = value

    source = pico("gpt2")
    folder = changed(source, tmp_path / "renamed", rename)
    expected = weights_of(source)
    found = original_weights(folder, config_of(folder))
    assert {key: tensor.sum() for key, tensor in found.items()} == {
        key: tensor.sum() for key, tensor in expected.items()
    }


def test_what_transformers_converts_is_loaded_by_it(pico: Folder, tmp_path: Path) -> None:
    """Old names of norms; a model that does not fit in memory is refused then."""

    def rename(tensors: dict[str, Tensor]) -> None:
        for key in list(tensors):
            tensors[key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")] = (
                tensors.pop(key)
            )

    folder = changed(pico("bert"), tmp_path / "old", rename)
    config = config_of(folder)
    expected = weights_of(pico("bert"))
    found = original_weights(folder, config)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    with pytest.raises(
        CheckpointError, match="stores .*LayerNorm.* under another name.*save_pretrained, or raise memory"
    ):
        open_original(folder, config, memory_bytes=1)


def test_unsound_checkpoints_are_refused_as_when_they_are_loaded(pico: Folder, tmp_path: Path) -> None:
    """Missing, of another shape, not finite: one message each, whether weights are read lazily or all at once."""

    def break_it(tensors: dict[str, Tensor]) -> None:
        tensors[NAME][3, 4] = torch.inf

    faults = {
        "missing": lambda tensors: tensors.pop(NAME),
        "shape": lambda tensors: tensors.update({NAME: torch.zeros(3, 32)}),
        "finite": break_it,
    }
    for name, fault in faults.items():
        folder = changed(pico("llama"), tmp_path / name, fault)
        with pytest.raises(CheckpointError, match=NAME) as loaded:
            load_original(folder)
        with pytest.raises(CheckpointError, match=NAME) as lazy:
            dict(weights_of(folder))
        assert str(lazy.value) == str(loaded.value)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    families.build("llama").save_pretrained(tmp_path, max_shard_size="50KB")
    shard = min(tmp_path.glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {shard.name}, which its index names"):
        weights_of(tmp_path)


def test_a_tensor_that_is_not_aligned_is_read(pico: Folder, tmp_path: Path) -> None:
    """Old files are padded by nothing."""
    folder = tmp_path / "odd"
    shutil.copytree(pico("llama"), folder)
    data = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length])).encode()
    header += b" " * (3 - len(header) % 4)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    assert len(header) % 4 == 3
    expected = weights_of(pico("llama"))
    assert all(torch.equal(tensor, expected[key]) for key, tensor in weights_of(folder).items())


@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_memory_decides_what_is_loaded(pico: Folder, name: str) -> None:
    """With one byte less than the weights take in float32, none are loaded, and nothing computes without them."""
    config = config_of(pico(name))
    size = sum(4 * tensor.numel() for tensor in load_original(pico(name)).parameters())
    model, parameters = open_original(pico(name), config, size)
    assert all(torch.equal(tensor, parameters[key]) for key, tensor in parameters_of(model).items())
    empty, streamed = open_original(pico(name), config, size - 1)
    assert isinstance(streamed, Weights)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert {key: tensor.shape for key, tensor in empty.state_dict().items()} == shapes
    assert all(is_placeholder(parameter) and parameter.isnan().all() for parameter in empty.parameters())
    assert all(torch.equal(one, other) for one, other in zip(model.buffers(), empty.buffers(), strict=True))
