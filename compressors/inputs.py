"""What the original's matrices read: their inputs on the calibration tokens, on disk while they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from paredown.compressors.calibration import run_base
from paredown.compressors.mapped import read_tensors
from paredown.compressors.planned import PlannedModel
from paredown.space.interruption import stop_if_asked
from paredown.space.plan import Plan


class Inputs(Mapping[str, Tensor]):
    """Inputs by name of the module, memory-mapped: shape ``(tokens, in_features)``, bfloat16; matrices that read the same share a file.

    Args:
        files: By name of the module.
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
def original_inputs(planned: PlannedModel, tokens: Tensor, mask: Tensor, folder: Path) -> Inputs:
    """Writes the inputs of every linear site in one pass of all tokens, padding left out.

    Args:
        planned: The model; left with everything kept.
        tokens: Shape ``(sequences, length)``, padded on the right.
        mask: 1 where there is a token.
        folder: An empty folder.
    """
    planned.swap(Plan())
    files: dict[str, Path] = {}
    last: list[tuple[Tensor, Path]] = []

    def write(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            stop_if_asked()
            if not last or last[0][0] is not inputs[0]:
                path = folder / f"{len(files)}.safetensors"
                save_file({"inputs": real_rows(inputs[0], mask).to(torch.bfloat16)}, path)
                last[:] = [(inputs[0], path)]
            files[name] = last[0][1]

        return hook

    names = [member.module for site in planned.inventory.leaves if site.kind == "linear" for member in site.members]
    hooks = [planned.module(name).register_forward_pre_hook(write(name)) for name in names]
    try:
        states = run_base(planned.model, tokens, mask, causal=planned.inventory.causal)
        for name in names:  # a head is no part of the base model: it reads the final states
            if name not in files:
                write(name)(planned.module(name), (states,))
    finally:
        for each in hooks:
            each.remove()
    return Inputs(files)


def real_rows(states: Tensor, mask: Tensor) -> Tensor:
    """States of the tokens that are no padding; shape ``(tokens, features)``, float32."""
    return states.reshape(-1, states.shape[-1])[mask.flatten().bool()].float()
