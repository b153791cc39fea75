"""Cached states of the original before a block: changes in that block or later do not rerun the earlier blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from paredown.compressors.model.planned_model import PlannedModel
from paredown.space.plan import Plan


class Prefix:
    """The original's input states of one block for all batches of some texts, and the model without the earlier blocks.

    Memory holds the states of one block. Moving to a later block runs the blocks in between once.

    Args:
        planned: The model.
        run: Runs the model over the texts, batch by batch, always in the same order.

    Attributes:
        block: The first block that runs within `skipping`.
        blocks: Number of blocks.
    """

    def __init__(self, planned: PlannedModel, run: Callable[[], object]) -> None:
        planned.swap(Plan())
        self._planned, self._run = planned, run
        self._name, self._originals = planned.modules.prefix, planned.modules.blocks
        self._outputs: list[Any] = []
        self.block, self.blocks = 0, len(self._originals)

    def walk_to(self, block: int) -> float:
        """Makes ``block`` the first block that runs; may put the plan that keeps everything in place.

        Returns:
            Cost of the move, in passes through all blocks.
        """
        first = self.block if self.block <= block else 0
        given, self._outputs, self.block = self._outputs, [], block
        if block == first:
            self._outputs = given
            return 0.0
        self._planned.swap(Plan())
        before = [Given(given, module) for module in self._originals[:first]]
        running = self._originals[first:block]
        after = [Given(self._outputs, module) for module in self._originals[block:]]
        hook = running[-1].register_forward_hook(lambda _, inputs, output: self._outputs.append(output))
        try:
            with blocks_replaced(self._planned.model, self._name, [*before, *running, *after]):
                self._run()
        finally:
            hook.remove()
        return len(running) / self.blocks

    @contextmanager
    def skipping(self) -> Iterator[None]:
        """Within the context, blocks before `block` return the original's outputs; the plan in place must keep them."""
        before = {id(module) for module in self._originals[: self.block]}
        present = self._planned.model.get_submodule(self._name).children()
        given = [Given(self._outputs, module) if id(module) in before else module for module in present]
        with blocks_replaced(self._planned.model, self._name, given):
            yield


@contextmanager
def blocks_replaced(model: nn.Module, name: str, modules: Sequence[nn.Module]) -> Iterator[None]:
    """Within the context, the model runs ``modules`` instead of its list of blocks called ``name``."""
    owner, before = model.get_submodule(name.rpartition(".")[0]), model.get_submodule(name)
    attribute = name.rpartition(".")[2]
    setattr(owner, attribute, nn.ModuleList(modules))
    try:
        yield
    finally:
        setattr(owner, attribute, before)


class Given(nn.Module):
    """Stand-in for a block that returns, at each call, the block's cached output for the next batch.

    Args:
        outputs: Outputs of the block, batch by batch; may still grow.
        block: The block that it replaces. Its plain attributes are copied, because a model may read them.
    """

    def __init__(self, outputs: Sequence[Any], block: nn.Module) -> None:
        super().__init__()
        self._outputs, self._calls = outputs, 0
        for name, value in vars(block).items():
            if isinstance(value, (bool, int, str)) and name not in vars(self):
                setattr(self, name, value)

    def forward(self, *_: Any, **__: Any) -> Any:
        """The cached output of the block for the next batch; the inputs are ignored."""
        output = self._outputs[self._calls % len(self._outputs)]
        self._calls += 1
        return output
