"""Registries of extensions by name: methods, targets, samplers and others, also those of other distributions.

A distribution offers an extension as an entry point. The group names the registry, such as ``paredown.methods``; the
name is the extension's; the value is what a file of ours would register.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Container, Iterator
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any, Generic, TypeVar

from paredown.space.errors import ExtensionError, UnknownNameError
from paredown.space.system.interruption import Stopped

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries of one kind by name. A taken name is an error; the error for an unknown one suggests the nearest.

    Args:
        kind: What is registered, as error messages name it: ``"method"``.
        package: Package whose modules register the entries, imported at the first lookup; None if others import them.
        group: Group of entry points, loaded at the first lookup, too; empty if other distributions offer none.
        entry: Class that the value of an entry point must be an instance or a subclass of.
        own_name: Attribute with an entry's own name, which must be the entry point's; empty if entries have none.
    """

    def __init__(
        self, kind: str, package: str | None = None, group: str = "", entry: Any = object, own_name: str = ""
    ) -> None:
        self.kind = kind
        self._offered_by: dict[str, str] = {}  # distribution and version of each entry that is not our own
        self._package, self._group, self._entry, self._own_name = package, group, entry, own_name
        self._registered: dict[str, T] = {}

    @property
    def _entries(self) -> dict[str, T]:
        if self._package:
            importlib.import_module(self._package)
            self._package = None
        if self._group:
            group, self._group = self._group, ""  # these packages, too, may ask for names while they are imported
            try:
                for point in _offered().select(group=group):
                    self._enter(point)
            except ExtensionError:
                self._group = group  # the next lookup fails, too
                raise
        return self._registered

    def _enter(self, point: EntryPoint) -> None:
        remedy = "update or uninstall that package"
        named = point.dist is not None and point.dist.name
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist and named else "an unnamed package"
        what = f"{self.kind} {point.name!r} of {distribution}"
        if self._offered_by.get(point.name) == distribution:
            return
        if point.name in self._registered:
            owner = self._offered_by.get(point.name, "paredown itself")
            raise ExtensionError(f"{what} has a name that {owner} registered before; {remedy}")
        try:
            entry = point.load()
        except (KeyboardInterrupt, Stopped):
            raise
        except BaseException as error:  # whatever a package raises while it is imported, SystemExit too
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ExtensionError(f"{what} cannot be imported ({reason}); {remedy}") from error
        if not isinstance(entry, self._entry) and self._entry not in getattr(entry, "__mro__", ())[1:]:
            raise ExtensionError(f"{what} is not a {self._entry.__name__} but of type {type(entry).__name__}; {remedy}")
        if self._own_name and (name := getattr(entry, self._own_name, None)) != point.name:
            raise ExtensionError(f"{what} calls itself {name!r}; {remedy}")
        self._registered[point.name] = entry
        self._offered_by[point.name] = distribution

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers an entry under ``name``.

        Raises:
            ValueError: If the name is taken.
        """

        def enter(entry: T) -> T:
            if name in self._registered:
                raise ValueError(f"{self.kind} {name!r} is already registered; choose another name")
            self._registered[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        near = difflib.get_close_matches(name, self._entries, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownNameError(f"unknown {self.kind} {name!r}; {hint}known: {', '.join(sorted(self._entries))}")

    def checked(self, name: str) -> str:
        """The name, if it is registered; for validators of files and choices.

        Raises:
            ValueError: If it is not; the message is that of `UnknownNameError`.
        """
        try:
            self[name]
        except UnknownNameError as error:
            raise ValueError(str(error)) from None
        return name

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))


def import_folder(package: str, path: list[str]) -> None:
    """Imports every module of a package's folder, so that a new file registers itself."""
    for module in pkgutil.iter_modules(path):
        if not module.ispkg:
            importlib.import_module(f"{package}.{module.name}")


def extensions(groups: Container[str] | None = None, names: Container[str] | None = None) -> dict[str, str]:
    """Versions of the distributions that offer extensions in these groups with these names; None stands for all.

    Imports none of them.
    """
    return {
        point.dist.name: point.dist.version
        for point in _offered()
        if point.dist and (groups is None or point.group in groups) and (names is None or point.name in names)
    }


@cache
def _offered() -> EntryPoints:
    """All extensions of other distributions."""
    try:
        every = entry_points()
    except ValueError as error:  # a file that is not text, or not in the form of entry points
        raise ExtensionError(f"the entry points of an installed package are damaged ({error}); reinstall it") from None
    groups = sorted(group for group in every.groups if group.startswith("paredown."))
    return EntryPoints(point for group in groups for point in every.select(group=group))
