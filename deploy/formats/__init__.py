"""Layouts of a compressed model on disk; each file of this folder registers its format on import."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from paredown.space.plan import Plan
from paredown.space.site import Inventory
from paredown.space.system.registry import Registry, import_folder
from paredown.space.tensors import TensorSpec


class Write(Protocol):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A layout of safetensors files.

    Attributes:
        write: Writes the files.
        stem: Beginning of the names of the tensor files.
        renaming: For an inventory and a plan: a function from the original's name of a tensor to its name in the files.
        turned: Names of the original's tensors that the files store transposed.
    """

    write: Write
    stem: str
    renaming: Callable[[Inventory, Plan], Callable[[str], str]] = lambda inventory, plan: str
    turned: Callable[[Inventory], set[str]] = lambda inventory: set()

    def layout(self, inventory: Inventory, plan: Plan) -> dict[str, TensorSpec]:
        """Spec of every tensor in the files, by its name there."""
        rename, turned = self.renaming(inventory, plan), self.turned(inventory)
        return {
            rename(name): TensorSpec(spec.dtype, spec.shape[::-1]) if name in turned else spec
            for name, spec in plan.layout(inventory).items()
        }


formats: Registry[Format] = Registry("format", group="paredown.formats", entry=Format)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, indented for human readers."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


import_folder(__name__, list(__path__))
