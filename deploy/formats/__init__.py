"""One file per layout of a compressed model on disk; a new one is found by being here, under the name of its target."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from paredown.space.plan import Plan
from paredown.space.registry import Registry, import_folder
from paredown.space.site import Inventory


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
            folder: Where; empty.
            config: Of the original; not modified.
            inventory: Of the original.
            plan: What was done to it.
            tensors: What ``plan.layout(inventory)`` names, under the original's names; made one by one, as they are taken.
            shard_bytes: Most tensor bytes of a file.
        """


formats: Registry[Format] = Registry("format")


def write_json(path: Path, value: Any) -> None:
    """A JSON file that people can read."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


import_folder(__name__, list(__path__))
