"""Statistics of the inputs of linear sites, collected in one pass over the calibration tokens and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from paredown.compressors.calibration.statistics_folder import INDEX, IndexFile, StatisticsFolder
from paredown.compressors.original.find_sites import blocks_of
from paredown.compressors.tensor_files.tensor_file import write_tensors
from paredown.space.errors import EvaluationError
from paredown.space.site import Inventory
from paredown.space.system.files import write_json
from paredown.space.system.interruption import stop_if_asked
from paredown.space.system.temporary import temporary_folder

VERSION = 1
"""Version of the statistics; part of `calibration_key`."""


def calibration_key(tokens: Tensor, mask: Tensor, origin_sha256: str) -> str:
    """Fingerprint of what statistics are collected from: tokens, their mask, and the digest of the model's `Origin`."""
    content = hashlib.sha256(f"{VERSION} {origin_sha256} {tuple(tokens.shape)}".encode())
    content.update(tokens.numpy().tobytes() + mask.numpy().tobytes())
    return content.hexdigest()


@torch.no_grad()
def collect(
    model: PreTrainedModel,
    inventory: Inventory,
    tokens: Tensor,
    mask: Tensor,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> StatisticsFolder:
    """Collects statistics of every linear site's inputs in one forward pass, and writes them block by block.

    Args:
        model: The original.
        inventory: Its sites.
        tokens: Shape ``(sequences, length)``, padded on the right.
        mask: 1 for a token, 0 for padding.
        folder: Folder of the statistics; only read if it holds them already.
        progress: Called with the number of finished blocks and the number of blocks.

    Raises:
        EvaluationError: If the inputs of a matrix have no finite second moment.
        DamagedError: If existing statistics are damaged; the next call collects them again.
    """
    if (folder / INDEX).is_file():
        return StatisticsFolder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder.parent) as temporary:
        made = temporary / folder.name
        made.mkdir()
        _collect(model, inventory, tokens, mask, made, progress)
        if not (folder / INDEX).is_file():  # if two processes collect the same, the first one's stay
            folder.mkdir(exist_ok=True)
            # The index goes last: its presence marks the folder as complete.
            for path in sorted(made.iterdir(), key=lambda path: path.name == INDEX):
                os.replace(path, folder / path.name)
    return StatisticsFolder(folder)


def _collect(
    model: PreTrainedModel,
    inventory: Inventory,
    tokens: Tensor,
    mask: Tensor,
    folder: Path,
    progress: Callable[[int, int], None],
) -> None:
    collector = _Collector(folder, mask)
    modules = dict(model.named_modules())
    name, blocks = blocks_of(model)
    linear = [member.module for site in inventory.leaves if site.kind == "linear" for member in site.members]
    outside = [module for module in linear if not module.startswith(f"{name}.")]
    hooks = [modules[module].register_forward_pre_hook(collector.watch(module)) for module in linear]
    for index, block in enumerate(blocks):
        hooks.append(block.register_forward_hook(collector.finish(index, lambda done: progress(done, len(blocks)))))
    try:
        states = run_base(model, tokens, mask, causal=inventory.causal)
        for module in outside:
            collector.watch(module)(modules[module], (states,))
        collector.write()
    finally:
        for hook in hooks:
            hook.remove()
    write_json(folder / INDEX, IndexFile(files=collector.files, distances=collector.distances).model_dump())


def run_base(model: PreTrainedModel, tokens: Tensor, mask: Tensor, *, causal: bool) -> Tensor:
    """Final hidden states of all tokens in one pass, without the head; shape ``(sequences, length, hidden)``."""
    if causal:  # padding is on the right, so causal attention hides it from all tokens
        states: Tensor = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        return states
    encoded: Tensor = model.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state
    return encoded


class _Collector:
    """Gathers the inputs of one block's modules, and writes their statistics when the block has run."""

    def __init__(self, folder: Path, mask: Tensor) -> None:
        self.folder = folder
        self.rows = mask.flatten().bool()
        self.files: dict[str, str] = {}
        self.distances: list[float] = []
        self._open: list[tuple[Tensor, list[str]]] = []

    def watch(self, module: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            for seen, names in self._open:
                if seen is inputs[0]:
                    names.append(module)
                    return
            self._open.append((inputs[0], [module]))

        return hook

    def finish(
        self, index: int, progress: Callable[[int], None]
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Any], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            stop_if_asked()
            after = output[0] if isinstance(output, tuple) else output
            self.distances.append(angular_distance(self._kept(inputs[0]), self._kept(after)))
            self.write()
            progress(index + 1)

        return hook

    def write(self) -> None:
        for inputs, names in self._open:
            rows = self._kept(inputs)
            found = {"second_moment": rows.T @ rows / len(rows), "mean_absolute": rows.abs().mean(0)}
            if not all(bool(torch.isfinite(values).all()) for values in found.values()):
                raise EvaluationError(
                    f"the inputs of {names[0]} have no finite second moment on the calibration texts; "
                    "check the model: its weights must be finite, its activations below 1e19"
                )
            file = hashlib.sha256(names[0].encode()).hexdigest()[:16] + ".safetensors"
            write_tensors(self.folder / file, found)
            self.files |= dict.fromkeys(names, file)
        self._open.clear()

    def _kept(self, states: Tensor) -> Tensor:
        return states.reshape(-1, states.shape[-1])[self.rows].float()


def angular_distance(before: Tensor, after: Tensor) -> float:
    """Mean angle between corresponding rows of two matrices, as a fraction of pi.

    Source:
        Gromov et al., 2024, "The Unreasonable Ineffectiveness of the Deeper Layers", arXiv 2403.17887, equation 6.
    """
    cosine = nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)
    return float(cosine.clamp(-1, 1).arccos().mean() / torch.pi)
