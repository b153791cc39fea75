"""The modules of the original under their names."""

from __future__ import annotations

from paredown.compressors.model.original_modules import OriginalModules
from paredown.compressors.original.checkpoint import load_original
from shared.planned import Folder


def test_names_are_those_of_the_original_whatever_is_dropped(pico: Folder) -> None:
    """Later blocks move up in the model, but not by name; what is dropped comes back."""
    model = load_original(pico("qwen2"))
    modules = OriginalModules(model)
    first, second = (modules[f"model.layers.{i}.mlp.down_proj"] for i in (0, 1))
    kinds = model.config.layer_types
    assert modules.drop((0,)) and not modules.drop((0,))
    assert model.get_submodule("model.layers.0.mlp.down_proj") is second is modules["model.layers.1.mlp.down_proj"]
    assert list(modules.running) == [modules.blocks[1]] and model.config.layer_types == kinds[1:]
    assert modules.drop(())
    assert model.get_submodule("model.layers.0.mlp.down_proj") is first
    assert list(modules.running) == list(modules.blocks) and model.config.layer_types == kinds
