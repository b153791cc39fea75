"""Layouts of a compressed model on disk: one file per target, registered by being in this folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from paredown.space.plan import Plan
from paredown.space.site import Inventory
from paredown.space.system.registry import Registry, import_folder


class Format(Protocol):
    """Writes configuration and tensors of a compressed model into an empty folder."""

    def __call__(
        self,
        folder: Path,
        *,
        config: Any,
        inventory: Inventory,
        plan: Plan,
        tensors: Iterable[tuple[str, Tensor]],
        shard_bytes: int,
    ) -> None:
        """Writes the files.

        Args:
            folder: Empty folder to write into.
            config: Configuration of the original; not modified.
            inventory: Inventory of the original.
            plan: The plan that was applied.
            tensors: Tensors of ``plan.layout(inventory)`` under the original's names; each is computed when it is
                taken.
            shard_bytes: Upper bound on the tensor bytes of a file.
        """


formats: Registry[Format] = Registry("format")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, indented for human readers."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


import_folder(__name__, list(__path__))
