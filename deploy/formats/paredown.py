"""paredown's own layout, version 1: every choice, every architecture; `paredown.load` makes a transformers model of it.

====================================  ==========================================================================================
``model.paredown.safetensors``        the tensors that the plan's methods declare, ``MODULE.TENSOR`` under the original's names
                                      (dropped blocks are not renumbered). Not ``model.safetensors``, so that plain
                                      ``from_pretrained`` refuses the folder in place of starting from random weights. Of a
                                      large model ``model.paredown-00001-of-00003.safetensors`` and so on, which
                                      ``model.paredown.safetensors.index.json`` names.
``config.json``                       the original's configuration
``paredown.json``                     layout version, choices by site, dtypes of the original's tensors: all that the loader needs
====================================  ==========================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from paredown.deploy.formats import formats, write_json
from paredown.deploy.shards import write_shards
from paredown.space.plan import Plan
from paredown.space.plan_file import choices_of
from paredown.space.site import Inventory

LAYOUT = 1
STEM = "model.paredown"


@formats.register("paredown")
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
