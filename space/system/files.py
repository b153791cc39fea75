"""JSON files that only paredown writes, and the atomic write of any file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from paredown.space.errors import OutputError, ParedownError, StudyError, write_remedy
from paredown.space.system.temporary import UNFINISHED, replaced_file

T = TypeVar("T")

DAMAGE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError)
"""Exceptions that reading stored data can raise if the data is not what was written."""

DIGEST = "sha256"
"""Key of a JSON file for the digest of the rest of its content."""


def read_json(path: Path, kind: type[T], error: type[ParedownError], remedy: str, *, sealed: bool = True) -> T:
    """The content of a JSON file of ours, strictly validated.

    Strings are not converted to numbers, and unknown keys are refused where ``kind`` forbids them.

    Args:
        path: The file.
        kind: Type of the content without the digest, such as a `TypedDict`.
        error: Class of the error for a file that is damaged or missing.
        remedy: What the error message tells the reader to do.
        sealed: Whether the digest that `write_json` adds is required. A digest that is present is always checked.

    Raises:
        ParedownError: Of class ``error``, if the file cannot be read or is damaged; one line.
    """

    def build(content: Any) -> T:
        return TypeAdapter(kind).validate_json(json.dumps(content), strict=True)

    return read_stored(path, build, remedy, error, sealed=sealed)


def read_stored(
    path: Path,
    build: Callable[[Any], T],
    remedy: str,
    error: type[ParedownError] = StudyError,
    *,
    sealed: bool = False,
) -> T:
    """A value built from a JSON file of ours.

    Args:
        path: The file.
        build: Builds the value from the parsed content. An exception in `DAMAGE` means that the file is damaged.
        remedy: What the error message tells the reader to do.
        error: Class of the error for a file that is damaged or missing.
        sealed: Whether the digest that `write_json` adds is required. A digest that is present is always checked.

    Raises:
        ParedownError: Of class ``error``, if the file cannot be read or is damaged; one line.
    """
    try:
        content = json.loads(path.read_bytes())
        digest = content.pop(DIGEST, None) if isinstance(content, dict) else None
        if (sealed or digest is not None) and digest != _digest(content):
            raise ValueError("its content is not what was written")
        return build(content)
    except OSError as fault:
        raise error(f"{path} cannot be read ({fault.strerror}); {remedy}") from None
    except DAMAGE as fault:
        raise error(f"{path} is damaged ({reason_of(fault)}); {remedy}") from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object with the digest of its content, atomically; `read_json` reads it.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
    """
    write_atomically(path, json.dumps({DIGEST: _digest(content), **content}, indent=0))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def reason_of(error: Exception) -> str:
    """Short text of what is wrong with stored data."""
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join(map(str, fault['loc'])) or 'the whole file'}: {fault['msg']}"
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return (str(error).splitlines() or [type(error).__name__])[0]


def write_atomically(path: Path, text: str | bytes) -> None:
    """Writes a file through `replaced_file`: a reader sees the whole old file or the whole new one.

    Raises:
        OutputError: If the folder cannot be written or the disk is full; the old file is unchanged.
    """
    data = text.encode() if isinstance(text, str) else text
    try:
        with replaced_file(path, prefix=f".{path.name}{UNFINISHED}") as new:
            new.write_bytes(data)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; {write_remedy(error)}") from None
