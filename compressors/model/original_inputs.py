"""Inputs of the original's matrices on the calibration tokens, kept on disk while they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from paredown.compressors.bank.bank import one_thread
from paredown.compressors.model.lockstep import parts_of, run_in_parts
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.tensor_files.mapped_safetensors import read_tensors
from paredown.space.plan import Plan
from paredown.space.system.interruption import stop_if_asked


class Inputs(Mapping[str, Tensor]):
    """Memory-mapped inputs by module name: shape ``(tokens, in_features)``, bfloat16.

    Args:
        files: File of each module's inputs, by module name. Matrices that read the same inputs share a file.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files

    def __getitem__(self, module: str) -> Tensor:
        return read_tensors(self.files[module])["inputs"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


@torch.no_grad()
def original_inputs(planned: PlannedModel, tokens: Tensor, mask: Tensor, folder: Path, workers: int = 1) -> Inputs:
    """Writes the inputs of every linear site in one pass of all tokens, without padding.

    Args:
        planned: The model; afterwards its plan keeps everything.
        tokens: Shape ``(sequences, length)``, padded on the right.
        mask: 1 for a token, 0 for padding.
        folder: An empty folder.
        workers: Number of compute threads; the files do not depend on it.
    """
    planned.swap(Plan())
    masks = [mask[part] for part in parts_of(tokens)]
    files: dict[str, Path] = {}
    last: list[tuple[Tensor, Path]] = []

    def write(name: str, given: Sequence[Tensor]) -> None:
        stop_if_asked()
        if not last or last[0][0] is not given[0]:
            path = folder / f"{len(files)}.safetensors"
            rows = [real_rows(states, present).to(torch.bfloat16) for states, present in zip(given, masks, strict=True)]
            save_file({"inputs": torch.cat(rows)}, path)
            last[:] = [(given[0], path)]
        files[name] = last[0][1]

    names = [member.module for site in planned.inventory.leaves if site.kind == "linear" for member in site.members]
    with one_thread():
        states = run_in_parts(
            planned, tokens, mask, {planned.modules[name]: partial(write, name) for name in names}, workers
        )
        for name in names:  # the head is outside the base model: it reads the final states
            if name not in files:
                write(name, states)
    return Inputs(files)


def real_rows(states: Tensor, mask: Tensor) -> Tensor:
    """States without padding, shape ``(tokens, features)``, float32; may share memory with ``states``."""
    rows = states.reshape(-1, states.shape[-1])
    return (rows if bool(mask.all()) else rows[mask.flatten().bool()]).float()
