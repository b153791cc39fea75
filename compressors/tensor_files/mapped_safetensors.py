"""Read-only memory mapping of safetensors files: the system can reclaim the pages that were read.

A private writable mapping, which safetensors makes for torch, counts against the memory limit of the process.
"""

from __future__ import annotations

import json
import mmap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from paredown.space.tensors import Layout, TensorSpec, total_bytes

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip

CODES = {name: code for code, name in DTYPES.items()}

ORDER = (
    "int64", "float64", "float32", "int32", "bfloat16", "float16", "int16",
    "float8_e4m3fn", "float8_e5m2", "int8", "uint8", "bool",
)  # fmt: skip
"""Dtypes in the order in which safetensors writes them: wider ones first, so that all tensors are aligned."""

Places = dict[str, tuple[TensorSpec, int]]
"""Spec of each tensor of a file and its offset from the start of the file [bytes], by name."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file by name, memory-mapped; do not modify them.

    Raises:
        SafetensorError: If the file is torn.
        OSError: If it cannot be read.
    """
    found = places(path)
    data = mapped_bytes(path)
    return {name: tensor_at(data, spec, start) for name, (spec, start) in found.items()}


def places(path: Path) -> Places:
    """Dtype, shape and offset of each tensor in a file [bytes from its start], read from the header.

    Raises:
        SafetensorError: If the file is torn.
        OSError: If it cannot be read.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, size)))
        header.pop("__metadata__", None)
        found = {
            name: (TensorSpec(DTYPES[value["dtype"]], tuple(value["shape"])), 8 + length + value["data_offsets"][0])
            for name, value in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SafetensorError(f"{path} is not a safetensors file ({error})") from None
    if size != max((start + spec.size_bytes for spec, start in found.values()), default=8 + length):
        raise SafetensorError(f"{path} is truncated")
    return found


def file_head(layout: Layout, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Header of a file exactly as safetensors writes it, and each tensor's offset in the data section [bytes]."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    starts, end = {}, 0
    for name in sorted(layout, key=lambda name: (ORDER.index(layout[name].dtype), name)):
        starts[name], end = end, end + layout[name].size_bytes
        header[name] = {
            "dtype": CODES[layout[name].dtype],
            "shape": list(layout[name].shape),
            "data_offsets": [starts[name], end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, starts


def file_bytes(layout: Layout, metadata: Mapping[str, str] | None = None) -> int:
    """Size of the file that holds the tensors of a layout [bytes]."""
    return len(file_head(layout, metadata or {})[0]) + total_bytes(layout)


def mapped_bytes(path: Path) -> Tensor:
    """The bytes of a file, mapped read-only; unmapped when the last tensor that views them is gone."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(data, dtype=torch.uint8)


def tensor_at(data: Tensor, spec: TensorSpec, start: int) -> Tensor:
    """The tensor whose data begins at byte ``start``; a copy if the data is not aligned, else a view."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    part = data[start : start + spec.size_bytes]
    if start % dtype.itemsize:  # old files are not aligned
        part = part.clone()
    return part.view(dtype).reshape(spec.shape)
