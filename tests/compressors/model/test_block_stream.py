"""A model whose blocks hold weights only while they run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors.calibration.collect import collect
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.original.checkpoint import is_placeholder
from paredown.compressors.original.find_sites import blocks_of
from paredown.compressors.original.lazy_weights import Weights
from shared.planned import NAMES, TOKENS, Folder, planned_model, states, streamed_model


def blocks(planned: PlannedModel) -> list[Tensor]:
    return [parameter for block in blocks_of(planned.model)[1] for parameter in block.parameters()]


def fail(*_: object) -> None:
    raise ValueError("stopped")


def test_a_streamed_block_has_weights_only_while_it_runs(pico: Folder, tmp_path: Path) -> None:
    """One block at a time; after an error, too, nothing is left in place, and the next pass is as any other."""
    planned = streamed_model(pico("llama"), tmp_path)
    assert planned.stream and isinstance(planned.bank.parameters, Weights)
    expected = states(planned_model(pico("llama"), tmp_path))
    seen = []

    def count(*_: object) -> None:
        seen.append([any(not is_placeholder(p) for p in block.parameters()) for block in blocks_of(planned.model)[1]])

    hooks = [block.mlp.register_forward_hook(count) for block in blocks_of(planned.model)[1]]  # type: ignore[operator,union-attr]
    assert torch.equal(states(planned), expected)
    assert seen == [[True, False], [False, True]]
    assert all(map(is_placeholder, blocks(planned)))
    failing = blocks_of(planned.model)[1][1].mlp.register_forward_pre_hook(fail)  # type: ignore[operator,union-attr]
    with pytest.raises(ValueError, match="stopped"):
        states(planned)
    assert all(map(is_placeholder, blocks(planned)))
    for hook in (failing, *hooks):
        hook.remove()
    assert torch.equal(states(planned), expected)


def test_streamed_blocks_take_the_same_memory_one_after_the_other(pico: Folder, tmp_path: Path) -> None:
    """For every kind of pass; a gradient, which needs all blocks at once, is NaN."""
    planned = streamed_model(pico("llama"), tmp_path)
    places: list[set[int]] = []

    def note(block: nn.Module, *_: object) -> None:
        places.append({parameter.data_ptr() for parameter in block.parameters() if parameter.dim() == 2})

    hooks = [block.mlp.register_forward_hook(partial(note, block)) for block in blocks_of(planned.model)[1]]  # type: ignore[operator,union-attr]
    states(planned)
    for hook in hooks:
        hook.remove()
    assert len(places) == 2 and len(places[0]) == 7 and places[0] == places[1]
    failing = blocks_of(planned.model)[1][0].mlp.register_forward_pre_hook(fail)  # type: ignore[operator,union-attr]
    with torch.inference_mode(), pytest.raises(ValueError, match="stopped"):
        planned.model(input_ids=TOKENS)
    failing.remove()
    states(planned)  # writes where the other kind of pass has left its memory
    embedded = torch.randn(1, 5, planned.model.config.hidden_size, requires_grad=True)
    planned.model(inputs_embeds=embedded).logits.sum().backward()
    assert embedded.grad is not None and embedded.grad.isnan().all()


@pytest.mark.parametrize("name", NAMES)
def test_statistics_of_a_streamed_model_are_the_same(pico: Folder, tmp_path: Path, name: str) -> None:
    found = []
    for make, place in ((planned_model, "resident"), (streamed_model, "streamed")):
        planned = make(pico(name), tmp_path)
        collect(planned.model, planned.inventory, TOKENS, torch.ones_like(TOKENS), tmp_path / place)
        found.append({path.name: path.read_bytes() for path in (tmp_path / place).iterdir()})
    assert found[0] == found[1]
    assert len(found[0]) > 2
