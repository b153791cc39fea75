"""Safetensors files, read without copying."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from paredown.compressors.tensor_files.mapped_safetensors import DTYPES, read_tensors


def tensors() -> dict[str, torch.Tensor]:
    """Tensors of every type and of odd sizes; one empty, one without dimensions."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2, (3, 5), generator=generator)
    named = {name: bits.to(getattr(torch, name)) for name in DTYPES.values()}
    return named | {"empty": torch.empty(0, 4), "number": torch.tensor(1.5)}


def private_bytes() -> int:
    """Private pages of this process that may be written, as the system counts them."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmData"].split()[0]) * 1024


def test_tensors_are_those_that_safetensors_reads(tmp_path: Path) -> None:
    for named in (tensors(), {}):
        save_file(named, tmp_path / "a.safetensors", {"some": "thing"})
        expected, found = load_file(tmp_path / "a.safetensors"), read_tensors(tmp_path / "a.safetensors")
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
            assert torch.equal(found[name].to(torch.float64), tensor.to(torch.float64)), name


def test_a_file_that_does_not_begin_aligned_is_read_too(tmp_path: Path) -> None:
    """Old ones have headers of any length."""
    save_file({"a": torch.arange(5.0)}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip() + b" "
    header += b" " * (1 - len(header) % 2)
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    assert len(header) % 4
    assert read_tensors(tmp_path / "a.safetensors")["a"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="asks the system as Linux does")
def test_what_is_read_is_no_memory_of_the_process(tmp_path: Path) -> None:
    """Nor is its file mapped any more when the tensor is gone."""
    size = 64 << 20
    save_file({"a": torch.zeros(size, dtype=torch.uint8)}, tmp_path / "a.safetensors")
    gc.collect()
    before = private_bytes()
    found = read_tensors(tmp_path / "a.safetensors")["a"]
    assert int(found.sum()) == 0
    assert private_bytes() - before < size / 8
    maps = Path("/proc/self/maps")
    assert "a.safetensors" in maps.read_text()
    del found
    assert "a.safetensors" not in maps.read_text()


@pytest.mark.parametrize("keep", [0, 5, 20, -1])
def test_a_torn_file_is_told(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SafetensorError, match="is truncated|is not a safetensors file"):
        read_tensors(path)
