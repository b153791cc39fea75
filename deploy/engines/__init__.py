"""Engines, which run compressed models: every module of this folder is one, under its file's name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from paredown.deploy.formats import formats
from paredown.evaluators.timing import Running
from paredown.space.system.registry import Registry
from paredown.space.targets.target import targets


class Opened(Running, Protocol):
    """A model folder that an engine has opened.

    Attributes:
        missing: Names of tensors that the model needs and the folder lacks.
        unexpected: Names of tensors that the folder holds and the model does not know.
    """

    missing: Sequence[str]
    unexpected: Sequence[str]

    def outputs(self, tokens: Tensor) -> Tensor:
        """Logits of a causal model, or last hidden states of an encoder, without a cache."""

    def generate(self, prompt: Tensor, tokens: int) -> Tensor:
        """The prompt ``(1, length)`` with this many of the likeliest tokens."""


@runtime_checkable
class Engine(Protocol):
    """A module that opens model folders. `verify` loads its file by path, in a fresh process.

    Attributes:
        NEEDS_PAREDOWN: Whether opening a folder imports paredown; if not, the file does not import it, either.
    """

    NEEDS_PAREDOWN: bool
    __file__: str

    def open_folder(self, folder: Path, dtype: torch.dtype, *, causal: bool) -> Opened:
        """The model in a folder that ``apply`` wrote, with activations of this dtype."""

    def wrap(self, model: PreTrainedModel, *, causal: bool) -> Running:
        """A model of a trial, as it is timed during a search."""


engines: Registry[Engine] = Registry("engine", group="paredown.engines", entry=Engine)

for _module in pkgutil.iter_modules(__path__):
    engines.register(_module.name)(cast(Engine, importlib.import_module(f"{__name__}.{_module.name}")))


def engine_of(target: str) -> Engine:
    """The engine that runs the models of a target.

    Raises:
        UnknownNameError: If it is unknown, or the format that the target's folders are written in.
    """
    formats[targets[target].format]
    return engines[targets[target].engine]
