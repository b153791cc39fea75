"""paredown's own layout, version 1: every choice and architecture, loaded by `paredown.load`.

================================  ======================================================================================
``model.paredown.safetensors``    Tensors that the plan's methods declare, ``MODULE.TENSOR`` under the original's names;
                                  dropped blocks are not renumbered. Large models are split into
                                  ``model.paredown-00001-of-00003.safetensors`` and so on, with the index
                                  ``model.paredown.safetensors.index.json``. The name is not ``model.safetensors``, so
                                  that plain ``from_pretrained`` refuses the folder instead of using random weights.
``config.json``                   The original's configuration.
``paredown.json``                 Layout version, choices by site and dtypes of the original's tensors: all that the
                                  loader needs.
================================  ======================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from paredown.deploy.formats import Format, formats, write_json
from paredown.deploy.formats.shards import write_shards
from paredown.space.plan import Plan
from paredown.space.plan_file import choices_of
from paredown.space.site import Inventory

LAYOUT = 1
"""Version of this layout."""

STEM = "model.paredown"
"""Beginning of the names of its tensor files."""


def write(
    folder: Path,
    *,
    config: Any,
    inventory: Inventory,
    plan: Plan,
    tensors: Iterable[tuple[str, Tensor]],
    shard_bytes: int,
) -> None:
    """Writes the layout above."""
    dtypes = {name: spec.dtype for name, spec in inventory.original_layout().items()}
    usual = Counter(dtypes.values()).most_common(1)[0][0]
    write_json(
        folder / "config.json", config.to_dict() | {"paredown": {"layout": LAYOUT, "load": "paredown.load(folder)"}}
    )
    write_json(
        folder / "paredown.json",
        {
            "layout": LAYOUT,
            "choices": choices_of(plan),
            "dtype": usual,
            "dtypes": {name: dtype for name, dtype in dtypes.items() if dtype != usual},
        },
    )
    write_shards(folder, STEM, plan.layout(inventory), tensors, shard_bytes)


formats.register("paredown")(Format(write=write, stem=STEM))
