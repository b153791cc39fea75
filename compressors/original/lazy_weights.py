"""Lazy reading of the original's tensors from its files, because a model may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from paredown.compressors.original.checkpoint import (
    empty_model,
    load_original,
    missing_weights,
    parameters_of,
    shards,
    skeleton,
    stored_layout,
)
from paredown.compressors.original.memory_limit import give_back_large
from paredown.compressors.tensor_files.mapped_safetensors import mapped_bytes, places, tensor_at
from paredown.space.errors import CheckpointError
from paredown.space.tensors import TensorSpec


def open_original(folder: Path, config: Any, memory_bytes: int) -> tuple[PreTrainedModel, Mapping[str, Tensor]]:
    """The original and its parameters by name.

    Both are in memory in float32 if that fits. Otherwise the model has no weights, and parameters are read lazily.

    Args:
        folder: A model folder.
        config: Its configuration.
        memory_bytes: Memory that the weights may take [bytes].

    Raises:
        CheckpointError: If the checkpoint is incomplete or damaged, or does not fit and cannot be streamed.
    """
    wanted = 4 * sum(parameter.numel() for parameter in skeleton(config).parameters())
    if wanted <= memory_bytes:
        model = load_original(folder, config)
        return model, {name: tensor.detach() for name, tensor in parameters_of(model).items()}
    weights = Weights(folder, config)
    if weights.missing:
        raise CheckpointError(
            f"{folder} stores {weights.missing[0]} under another name, so it must be loaded whole, which takes "
            f"{wanted:,} bytes; {memory_bytes:,} are allowed; rewrite it with save_pretrained, or raise memory"
        )
    give_back_large()
    return empty_model(config), weights


def original_weights(folder: Path, config: Any) -> Mapping[str, Tensor]:
    """The original's parameters by name: read lazily, or all in memory if transformers has to convert what is stored.

    Raises:
        CheckpointError: If the checkpoint is incomplete or damaged.
    """
    weights = Weights(folder, config)
    return parameters_of(load_original(folder, config)) if weights.missing else weights


class Weights(Mapping[str, Tensor]):
    """The original's parameters and stored buffers by name, in their stored dtypes, each read when it is requested.

    A tied parameter appears once. Files are mapped read-only, so the system can reclaim the pages that were read.
    Converted to float32, the values equal those of `load_original`.

    Args:
        folder: A model folder.
        config: Its configuration.

    Attributes:
        missing: Names that the files lack but transformers may still derive from others: legacy names, merged tensors.

    Raises:
        CheckpointError: If weights are missing or truncated, or their shape is not the configuration's; when read, if
            they are not finite.
    """

    def __init__(self, folder: Path, config: Any) -> None:
        self.folder = folder
        stored = stored_layout(folder)
        model = skeleton(config)
        parameters = parameters_of(model)
        self._stored, unused = _stored_names(model, parameters, stored)
        self.missing = sorted(parameters.keys() - self._stored.keys())
        if self.missing and not unused and not getattr(model, "_keys_to_ignore_on_load_missing", None):
            raise missing_weights(folder, config, self.missing)
        for name, key in sorted(self._stored.items()):
            found, expected = stored[key].shape, tuple(parameters[name].shape)
            if found != expected:
                raise CheckpointError(
                    f"{folder}: {name} has shape {found}, config.json requires {expected}; correct one of them"
                )
        self._names = [name for name in parameters if name in self._stored]
        self._places: dict[str, tuple[Path, TensorSpec, int]] = {}
        for path in shards(folder):
            self._places |= {key: (path, spec, start) for key, (spec, start) in places(path).items()}
        self._open: dict[Path, Tensor] = {}
        self._finite: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        path, spec, start = self._places[self._stored[name]]
        if path not in self._open:
            self._open[path] = mapped_bytes(path)
        tensor = tensor_at(self._open[path], spec, start)
        if name not in self._finite:
            if not torch.isfinite(tensor).all():
                raise CheckpointError(
                    f"{self.folder}: {name} holds values that are not finite; give an intact checkpoint"
                )
            self._finite.add(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __getstate__(self) -> dict[str, Any]:
        """State without the mappings: another process maps the files itself."""
        return self.__dict__ | {"_open": {}}


def _stored_names(
    model: PreTrainedModel, parameters: Mapping[str, Tensor], stored: Mapping[str, TensorSpec]
) -> tuple[dict[str, str], list[str]]:
    """The key under which each parameter is stored, and the keys that belong to no parameter.

    A key is a parameter's name, or one of its names if it is tied. The base model's prefix may be missing or added.
    """
    first = {id(tensor): name for name, tensor in parameters.items()}
    known = {
        name: first[id(tensor)] for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in first
    }
    prefix = f"{model.base_model_prefix}."
    found: dict[str, str] = {}
    unused = []
    for key in stored:
        name = next((known[each] for each in (key, prefix + key, key.removeprefix(prefix)) if each in known), None)
        if name is None:
            unused.append(key)
        elif name not in found or key == name:
            found[name] = key
    return found, unused
