"""Models in several files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from paredown.compressors.original.checkpoint import load_original, parameters_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.deploy.apply import apply_plan, encoded
from paredown.deploy.engines.transformers import TorchModel
from paredown.deploy.formats import formats
from paredown.deploy.formats.shards import split, write_shards
from paredown.deploy.header import read_header
from paredown.deploy.load import load
from paredown.deploy.verify import check_stored
from paredown.space.errors import CheckpointError, VerificationError
from paredown.space.tensors import TensorSpec, total_bytes
from shared import pico as families
from shared.written import applied, file_of, plan_of, tokens

Folder = Callable[[str], Path]
TYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "float8_e4m3fn",
    "float8_e5m2",
)
STEMS = {"paredown": "model.paredown", "transformers": "model"}


def of_every_type() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{name}.{kind}": torch.randn(3, 2, generator=generator).to(getattr(torch, kind))
        for name in "za\u00e9"
        for kind in TYPES
    }
    return tensors | {"number": torch.tensor(2.5), "nothing": torch.zeros(0, 4)}


def layout_of(tensors: dict[str, Tensor]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


def test_one_file_is_what_safetensors_writes(tmp_path: Path) -> None:
    """Byte for byte, in whatever order the tensors come."""
    tensors = of_every_type()
    save_file(tensors, tmp_path / "expected.safetensors", metadata={"format": "pt"})
    write_shards(tmp_path, "model", layout_of(tensors), reversed(tensors.items()))
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_files_hold_at_most_what_they_may(tmp_path: Path) -> None:
    """Every tensor is in the file that the index names; one that is larger has a file of its own."""
    tensors = of_every_type() | {"large": torch.ones(100)}
    layout = layout_of(tensors)
    write_shards(tmp_path, "model", layout, tensors.items(), shard_bytes=100)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    found: dict[str, str] = {}
    for path in tmp_path.glob("*.safetensors"):
        part = load_file(path)
        assert total_bytes(layout_of(part)) <= 100 or part.keys() == {"large"}
        assert all(torch.equal(value.double(), tensors[name].double()) for name, value in part.items())
        found |= dict.fromkeys(part, path.name)
    assert found == index["weight_map"]
    assert index["metadata"]["total_size"] == total_bytes(layout)
    assert found.keys() == tensors.keys()
    assert len(list(split(layout, 100))) == len(set(found.values())) > 2


def test_other_tensors_than_the_plan_says_are_refused(tmp_path: Path) -> None:
    layout = {"a": TensorSpec("float32", (2,))}
    with pytest.raises(VerificationError, match="a is .*float64.*, the plan says .*float32"):
        write_shards(tmp_path, "model", layout, [("a", torch.zeros(2).double())])
    with pytest.raises(VerificationError, match="b is .*, the plan says nothing"):
        write_shards(tmp_path, "model", layout, [("b", torch.zeros(2))])
    with pytest.raises(VerificationError, match="a was not written"):
        write_shards(tmp_path, "model", layout, [])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("target", ["paredown", "transformers"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
@torch.no_grad()
def test_a_model_in_shards_is_the_model_in_one_file(pico: Folder, tmp_path: Path, name: str, target: str) -> None:
    """The same tensors and bytes; it loads and computes the same, and plain transformers loads its target's."""
    whole, plan, inventory = applied(pico(name), tmp_path / "whole", target)
    parts = apply_plan(file_of(pico(name), plan, target), pico(name), tmp_path / "parts", shard_bytes=4_000)
    assert (tmp_path / "whole" / f"{STEMS[target]}.safetensors").is_file()
    assert len(list(parts.folder.glob(f"{STEMS[target]}-*.safetensors"))) > 2
    assert read_header(parts.folder)[0] == read_header(whole.folder)[0]
    assert parts.size_bytes == whole.size_bytes
    check_stored(parts.folder, inventory, plan, formats[target])
    expected = TorchModel(load(whole.folder, torch.float32), causal=True).outputs(tokens())
    assert torch.equal(TorchModel(load(parts.folder, torch.float32), causal=True).outputs(tokens()), expected)
    if target == "transformers":
        plain = AutoModelForCausalLM.from_pretrained(parts.folder, dtype=torch.float32)
        assert torch.equal(TorchModel(plain, causal=True).outputs(tokens()), expected)
    else:
        with pytest.raises(OSError, match="model.safetensors"):
            AutoModelForCausalLM.from_pretrained(parts.folder)


@pytest.mark.parametrize("target", ["paredown", "transformers"])
def test_a_missing_shard_neither_loads_nor_verifies(pico: Folder, tmp_path: Path, target: str) -> None:
    inventory = inventory_of(pico("llama"))
    plan = plan_of(inventory, target, drop=None)
    apply_plan(file_of(pico("llama"), plan, target), pico("llama"), tmp_path / "out", shard_bytes=4_000)
    shard = min((tmp_path / "out").glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        load(tmp_path / "out")
    with pytest.raises(VerificationError, match="is missing, expected"):
        check_stored(tmp_path / "out", inventory, plan, formats[target])


def test_a_site_is_compressed_when_the_one_before_it_is_written(tmp_path: Path) -> None:
    """No tensor is asked for before the one before it is in its file: one site is in memory at a time."""
    layout = {name: TensorSpec("uint8", (1 << 20,)) for name in "abc"}
    sizes: list[int] = []

    def made() -> Iterator[tuple[str, Tensor]]:
        for number, name in enumerate(layout, 1):
            data = (tmp_path / "model.safetensors").read_bytes()
            sizes.append(sum(bytes([value]) in data[-(3 << 20) :] for value in (1, 2, 3)))
            yield name, torch.full((1 << 20,), number, dtype=torch.uint8)

    write_shards(tmp_path, "model", layout, made())
    assert sizes == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", families.PICO_NAMES)
def test_apply_writes_what_a_loaded_model_is_compressed_to(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    """Byte for byte, though it reads the weights one by one."""
    folder = families.save(name, tmp_path / "original", dtype)
    result, plan, inventory = applied(folder, tmp_path / "out", "paredown", drop=1)
    expected = encoded(inventory, plan, parameters_of(load_original(folder)))
    save_file(expected, tmp_path / "expected.safetensors", metadata={"format": "pt"})
    assert (result.folder / "model.paredown.safetensors").read_bytes() == (
        tmp_path / "expected.safetensors"
    ).read_bytes()
