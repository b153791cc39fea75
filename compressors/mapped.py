"""Safetensors files mapped read-only: what was read costs no memory that the system could not take back.

A private mapping that may be written, as safetensors makes for torch, counts as memory of the process wherever that is limited.
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
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip

CODES = {name: code for code, name in DTYPES.items()}

ORDER = (
    "int64", "float64", "float32", "int32", "bfloat16", "float16", "int16", "float8_e4m3fn", "float8_e5m2", "int8", "uint8", "bool"
)  # fmt: skip
"""Types in a file, as safetensors orders them: wider ones first, so that all tensors are aligned."""

Places = dict[str, tuple[TensorSpec, int]]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, by name; not to be modified.

    Raises:
        SafetensorError: If the file is torn.
        OSError: If it cannot be read.
    """
    found = places(path)
    data = mapped_bytes(path)
    return {name: tensor_at(data, spec, start) for name, (spec, start) in found.items()}


def places(path: Path) -> Places:
    """What each tensor of a file is, and where it lies, in bytes from the file's beginning.

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
        raise SafetensorError(f"{path} is no safetensors file ({error})") from None
    if size != max((start + spec.size_bytes for spec, start in found.values()), default=8 + length):
        raise SafetensorError(f"{path} is truncated")
    return found


def file_head(layout: Layout, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """What a file begins with, byte for byte as safetensors writes it, and where each tensor lies in the data that follows."""
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
    """Size of the file that holds the tensors of a layout."""
    return len(file_head(layout, metadata or {})[0]) + total_bytes(layout)


def mapped_bytes(path: Path) -> Tensor:
    """The bytes of a file, read-only; unmapped when the last tensor that looks at them is gone."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(data, dtype=torch.uint8)


def tensor_at(data: Tensor, spec: TensorSpec, start: int) -> Tensor:
    """The tensor that lies in bytes from ``start`` on."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    part = data[start : start + spec.size_bytes]
    if start % dtype.itemsize:  # old files are not aligned
        part = part.clone()
    return part.view(dtype).reshape(spec.shape)
