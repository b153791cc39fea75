"""paredown's own loader, with its kernels for compressed matrices."""

from __future__ import annotations

from pathlib import Path

import torch

from paredown.deploy.engines.transformers import TorchModel
from paredown.deploy.load import load

NEEDS_PAREDOWN = True

wrap = TorchModel


def open_folder(folder: Path, dtype: torch.dtype, *, causal: bool) -> TorchModel:
    """The model that `load` gives, which refuses missing and unexpected tensors itself."""
    return TorchModel(load(folder, dtype), causal=causal)
