"""Names."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from paredown.space.errors import ParedownError, UnknownNameError
from paredown.space.system.registry import Registry


def filled() -> Registry[int]:
    registry: Registry[int] = Registry("thing")
    for name, value in (("quantize", 1), ("prune", 2), ("drop", 3)):
        registry.register(name)(value)
    return registry


def test_a_name_gives_its_thing_and_all_are_listed_in_order() -> None:
    """Whatever the order of registration."""
    registry = filled()
    assert list(registry) == ["drop", "prune", "quantize"]
    assert registry["prune"] == 2
    assert "prune" in registry
    assert "grow" not in registry


def test_a_taken_name_is_an_error_and_changes_nothing() -> None:
    """Even for the same thing."""
    registry = filled()
    with pytest.raises(ValueError, match="thing 'drop' is already registered; choose another name"):
        registry.register("drop")(4)
    assert registry["drop"] == 3


def test_an_unknown_name_suggests_the_nearest_and_lists_all() -> None:
    """The nearest only where something is near."""
    with pytest.raises(
        UnknownNameError, match="unknown thing 'quantise'; did you mean 'quantize'. known: drop, prune, quantize"
    ):
        filled()["quantise"]
    with pytest.raises(UnknownNameError, match="unknown thing 'xyz'; known: drop, prune, quantize"):
        filled()["xyz"]
    assert issubclass(UnknownNameError, ParedownError)


def test_a_checked_name_comes_back_and_an_unknown_one_is_a_fault_of_its_field() -> None:
    """A ValueError, which pydantic gathers with the others; of the same words."""
    assert filled().checked("prune") == "prune"
    with pytest.raises(
        ValueError, match="unknown thing 'quantise'; did you mean 'quantize'. known: drop, prune, quantize"
    ):
        filled().checked("quantise")


def test_a_registry_imports_its_package_when_the_first_name_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way; its files may ask for names themselves while they are imported."""
    (tmp_path / "colours.py").write_text(
        "import owner\nowner.registry.register('red')(1)\nassert owner.registry['red'] == 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for ask in (lambda registry: registry["red"], lambda registry: list(registry), lambda registry: "red" in registry):
        owner = ModuleType("owner")
        owner.registry = Registry("colour", package="colours")
        monkeypatch.setitem(sys.modules, "owner", owner)
        monkeypatch.delitem(sys.modules, "colours", raising=False)
        assert ask(owner.registry)
        assert list(owner.registry) == ["red"]
