"""Safetensors files written tensor by tensor: sizes are known before, so nothing is held but the tensor that is written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from paredown.compressors.mapped import file_head
from paredown.space.errors import VerificationError
from paredown.space.tensors import Layout, TensorSpec, total_bytes

SHARD_BYTES = 5 * 10**9
"""Most tensor bytes of a file, as transformers has it; a larger tensor has a file of its own."""


def write_shards(
    folder: Path, stem: str, layout: Layout, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes ``STEM.safetensors``, or files of at most ``shard_bytes`` and the index that names them; all synced to disk.

    Args:
        folder: Where.
        stem: What the files' names begin with.
        layout: Every tensor that is to be written.
        tensors: The tensors, in any order; taken one by one.
        shard_bytes: Most tensor bytes of a file.

    Raises:
        VerificationError: If the tensors are not those of the layout.
    """
    parts = list(split(layout, shard_bytes))
    names = (
        [f"{stem}.safetensors"]
        if len(parts) == 1
        else [f"{stem}-{i + 1:05}-of-{len(parts):05}.safetensors" for i in range(len(parts))]
    )
    missing = dict(layout)
    with ExitStack() as stack:
        places: dict[str, tuple[BinaryIO, int]] = {}
        files = [stack.enter_context((folder / name).open("wb")) for name in names]
        for file, part in zip(files, parts, strict=True):
            places |= {name: (file, start) for name, start in _begin(file, part).items()}
        for name, tensor in tensors:
            found = TensorSpec(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            if missing.pop(name, None) != found:
                raise VerificationError(
                    f"{name} is {found}, the plan says {layout.get(name, 'nothing')}; report this as a bug"
                )
            place, start = places[name]
            place.seek(start)
            place.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        if missing:
            raise VerificationError(
                f"{', '.join(list(missing)[:3])} was not made, the plan says it is there; report this as a bug"
            )
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    if len(parts) > 1:
        weight_map = {name: file for file, part in zip(names, parts, strict=True) for name in part}
        index = {"metadata": {"total_size": total_bytes(layout)}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def split(layout: Layout, shard_bytes: int) -> Iterator[dict[str, TensorSpec]]:
    """The layout in parts of at most so many bytes, in its order; a larger tensor is a part by itself."""
    part: dict[str, TensorSpec] = {}
    size = 0
    for name, spec in layout.items():
        if part and size + spec.size_bytes > shard_bytes:
            yield part
            part, size = {}, 0
        part[name] = spec
        size += spec.size_bytes
    yield part


def _begin(file: BinaryIO, layout: Layout) -> dict[str, int]:
    """Writes the header; where each tensor begins."""
    head, starts = file_head(layout, {"format": "pt"})
    file.write(head)
    file.truncate(len(head) + total_bytes(layout))
    return {name: len(head) + start for name, start in starts.items()}
