"""Safetensors files mapped read-only: what was read costs no memory that the system could not take back.

A private mapping that may be written, as safetensors makes for torch, counts as memory of the process wherever that is limited.
"""

from __future__ import annotations

import json
import mmap
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from paredown.space.tensors import TensorSpec

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip

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
