"""Writes safetensors files tensor by tensor.

All sizes are known in advance, so only the tensor being written is in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from paredown.compressors.tensor_files.mapped_safetensors import file_head
from paredown.space.errors import VerificationError
from paredown.space.tensors import Layout, TensorSpec, total_bytes

SHARD_BYTES = 5 * 10**9
"""Upper bound on the tensor bytes of a file, the default of transformers; a larger tensor gets its own file."""


def write_shards(
    folder: Path, stem: str, layout: Layout, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes ``STEM.safetensors``, or several files of at most ``shard_bytes`` with an index.

    The tensor files are synced to disk.

    Args:
        folder: Folder to write into.
        stem: Beginning of the file names.
        layout: Spec of every tensor to write.
        tensors: The tensors, in any order; taken one by one.
        shard_bytes: Upper bound on the tensor bytes of a file.

    Raises:
        VerificationError: If the tensors do not match the layout.
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
                f"{', '.join(list(missing)[:3])} was not written, but the plan has it; report this as a bug"
            )
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    if len(parts) > 1:
        weight_map = {name: file for file, part in zip(names, parts, strict=True) for name in part}
        index = {"metadata": {"total_size": total_bytes(layout)}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def split(layout: Layout, shard_bytes: int) -> Iterator[dict[str, TensorSpec]]:
    """The layout split in order into parts of at most ``shard_bytes``; a larger tensor is its own part."""
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
    """Writes the header and returns the offset of each tensor in the file."""
    head, starts = file_head(layout, {"format": "pt"})
    file.write(head)
    file.truncate(len(head) + total_bytes(layout))
    return {name: len(head) + start for name, start in starts.items()}
