"""Deployed models in memory: their type, their bytes, and whether they fit."""

from __future__ import annotations

from typing import Any

import torch

from paredown.space.errors import StudyError
from paredown.space.space import Space


def check_deployed(size_bytes: int, memory: int) -> None:
    """Checks that a deployed model fits in memory, since timing plans builds one.

    Raises:
        StudyError: If it does not fit.
    """
    if size_bytes > memory:
        raise StudyError(
            f"timing plans builds the model, which takes {size_bytes:,} bytes, but memory allows {memory:,}; "
            "set latency: off"
        )


def deployed_dtype(config: Any, space: Space) -> torch.dtype:
    """Activation dtype of deployed models: the target's, else that of the stored original."""
    stored: torch.dtype = config.dtype or torch.float32
    return getattr(torch, space.target.dtype) if space.target.dtype else stored


def deployed_bytes(config: Any, space: Space) -> int:
    """Bytes of a deployed model in memory, counted as if nothing were compressed."""
    return deployed_dtype(config, space).itemsize * space.inventory.parameters
