"""The modules of the original by name, whatever plan is in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from paredown.compressors.original.find_sites import blocks_of


class OriginalModules:
    """A model's modules under the names that they have in the original.

    Dropping a block renames the later ones in the model, so looking a name up there finds another module.

    Args:
        model: The original; its parameters and its list of blocks are replaced.

    Attributes:
        prefix: Name of the list of blocks.
        blocks: All blocks of the original.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._by_name: dict[str, nn.Module] = dict(model.named_modules())
        self.prefix, blocks = blocks_of(model)
        self.blocks = tuple(blocks)
        self._layer_types = getattr(model.config, "layer_types", None)
        self._dropped: tuple[int, ...] | None = ()

    def __getitem__(self, name: str) -> nn.Module:
        return self._by_name[name]

    @property
    def running(self) -> nn.ModuleList:
        """The blocks that are not dropped."""
        blocks: Any = self._model.get_submodule(self.prefix)
        found: nn.ModuleList = blocks
        return found

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Replaces parameters by name; the old ones are not written into."""
        for name, value in values.items():
            module_name, _, part = name.rpartition(".")
            module: Any = self._by_name[module_name]
            parameter: Tensor = getattr(module, part)
            parameter.data = value
            if part == "weight" and hasattr(module, "nf"):  # GPT-2's Conv1D shapes its output by this
                module.nf = value.shape[1]

    def drop(self, dropped: tuple[int, ...]) -> bool:
        """Leaves out the blocks with these indices and puts back all others; whether that changed anything."""
        if dropped == self._dropped:
            return False
        self._dropped = None  # until both the list and the configuration are changed
        stay = [i for i in range(len(self.blocks)) if i not in dropped]
        owner, _, attribute = self.prefix.rpartition(".")
        setattr(self._by_name[owner], attribute, nn.ModuleList(self.blocks[i] for i in stay))
        if self._layer_types is not None:
            self._model.config.layer_types = [self._layer_types[i] for i in stay]
        self._dropped = dropped
        return True
