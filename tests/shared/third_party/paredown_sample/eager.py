"""An engine that runs paredown's folders in eager PyTorch."""

from __future__ import annotations

from pathlib import Path

import torch

import paredown
from paredown.deploy.engines.transformers import TorchModel

NEEDS_PAREDOWN = True

wrap = TorchModel


def open_folder(folder: Path, dtype: torch.dtype, *, causal: bool) -> TorchModel:
    """The model in a folder."""
    return TorchModel(paredown.load(folder, dtype), causal=causal)
