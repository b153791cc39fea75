"""Names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from paredown.space.errors import ExtensionError, ParedownError, UnknownNameError
from paredown.space.system import registry as registry_module
from paredown.space.system.registry import Registry, extensions
from shared.third_party.install import offer


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


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[SimpleNamespace]]:
    """A registry with ``blue`` of ours; a distribution offers ``red``, the value ``RED`` of the module ``reddish``."""
    offer(tmp_path, "more-colours", "2.0", {"paredown.colours": {"red": "reddish:RED"}})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "reddish", raising=False)
    registry_module._offered.cache_clear()  # looked up once in a process
    found: Registry[SimpleNamespace] = Registry(
        "colour", group="paredown.colours", entry=SimpleNamespace, own_name="name"
    )
    found.register("blue")(SimpleNamespace(name="blue"))
    yield found
    registry_module._offered.cache_clear()


RED = "from types import SimpleNamespace\nRED = SimpleNamespace(name='red')\n"


def test_what_another_distribution_offers_is_imported_at_the_first_lookup(
    colours: Registry[SimpleNamespace], tmp_path: Path
) -> None:
    """Not before; what is offered, and by which version, is known without importing it."""
    (tmp_path / "reddish.py").write_text(RED)
    assert extensions() == extensions(names={"red", "green"}) == {"more-colours": "2.0"}
    assert extensions(names={"blue", "green"}) == extensions({"paredown.none"}) == {}
    assert "reddish" not in sys.modules
    assert list(colours) == ["blue", "red"]
    assert colours["red"].name == "red"


@pytest.mark.parametrize(
    ("text", "taken", "message"),
    [
        ("1 / 0", False, r"cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("raise SystemExit(0)", False, r"cannot be imported \(SystemExit: 0\)"),
        ("", False, r"cannot be imported \(AttributeError: .*\)"),
        ("RED = 5", False, "is not a SimpleNamespace but of type int"),
        (RED.replace("'red'", "'pink'"), False, "calls itself 'pink'"),
        (RED, True, "has a name that paredown itself registered before"),
    ],
)
def test_a_faulty_extension_is_one_line_that_names_its_distribution(
    text: str, taken: bool, message: str, colours: Registry[SimpleNamespace], tmp_path: Path
) -> None:
    """At every lookup, not only at the first."""
    (tmp_path / "reddish.py").write_text(f"{text}\n")
    if taken:
        colours.register("red")(SimpleNamespace(name="red"))
    for _ in range(2):
        with pytest.raises(
            ExtensionError, match=f"^colour 'red' of more-colours 2.0 {message}; update or uninstall that package$"
        ):
            colours["blue"]


def test_a_name_that_two_distributions_offer_is_refused(colours: Registry[SimpleNamespace], tmp_path: Path) -> None:
    """The message names both."""
    (tmp_path / "reddish.py").write_text(RED)
    offer(tmp_path, "other-colours", "0.1", {"paredown.colours": {"red": "reddish:RED"}})
    with pytest.raises(ExtensionError, match="has a name that (more-colours 2.0|other-colours 0.1) registered"):
        list(colours)
