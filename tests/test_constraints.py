"""The releases that a clone installs are those that were tested."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared import ROOT

PINNED = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


def needed(name: str, extras: frozenset[str] = frozenset()) -> Iterator[Requirement]:
    """What an installed package asks for on this machine, with these extras; nothing of one that is not installed."""
    try:
        found = [Requirement(line) for line in requires(name) or ()]
    except PackageNotFoundError:
        return
    yield from (
        each for each in found if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras or {""})
    )


def test_every_dependency_is_pinned_to_one_release() -> None:
    """Every dependency, direct or not, is pinned: a release that nobody tried cannot slip in."""
    pins = {canonicalize_name(each.name): each for each in PINNED}
    assert all(len(each.specifier) == 1 and str(each.specifier).startswith("==") for each in PINNED)
    waiting, seen, missing = [("paredown", frozenset({"", "dev"}))], set(), set()
    while waiting:
        for each in needed(*waiting.pop()):
            name = canonicalize_name(each.name)
            if name not in pins:
                missing.add(name)
            if (name, frozenset(each.extras)) not in seen:
                seen.add((name, frozenset(each.extras)))
                waiting.append((name, frozenset(each.extras)))
    assert len(seen) > 30 and not missing


def test_pins_lie_in_the_ranges() -> None:
    """What was tested is allowed by `pyproject.toml`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(line) for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]
    pins = {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in PINNED}
    assert not [
        f"{each}, tested with {pin}"
        for each in asked
        if (pin := pins[canonicalize_name(each.name)]) not in each.specifier
    ]
