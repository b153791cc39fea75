"""Registries of extensions by name: methods, targets, samplers and others."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from paredown.space.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries of one kind by name. A taken name is an error; the error for an unknown one suggests the nearest.

    Args:
        kind: What is registered, as error messages name it: ``"method"``.
        package: Package whose modules register the entries, imported at the first lookup; None if others import them.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._registered: dict[str, T] = {}

    @property
    def _entries(self) -> dict[str, T]:
        if self._package:
            importlib.import_module(self._package)
            self._package = None
        return self._registered

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
