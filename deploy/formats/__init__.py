"""One file per layout of a compressed model on disk; a new one is found by being here, under the name of its target."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import save_file
from torch import Tensor

from paredown.space.plan import Plan
from paredown.space.registry import Registry, import_folder
from paredown.space.site import Inventory


class Format(Protocol):
    """Writes configuration and tensors of a compressed model into an empty folder."""

    def __call__(self, folder: Path, *, config: Any, inventory: Inventory, plan: Plan, tensors: Mapping[str, Tensor]) -> None:
        """Writes the files.

        Args:
            folder: Where; empty.
            config: Of the original; not modified.
            inventory: Of the original.
            plan: What was done to it.
            tensors: What ``plan.layout(inventory)`` names, under the original's names.
        """


formats: Registry[Format] = Registry("format")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, synced to disk."""
    save_file(dict(tensors), path, metadata={"format": "pt"})
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """A JSON file that people can read."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


import_folder(__name__, list(__path__))
