"""Readers of YAML files that people write and of JSON files that only paredown writes.

YAML is read by a safe loader. All faults are reported at once, each with its line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from paredown.space.errors import OutputError, ParedownError, StudyError, write_remedy
from paredown.space.system.temporary import UNFINISHED, replaced_file

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

DAMAGE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError)
"""Exceptions that reading stored data can raise if the data is not what was written."""

LIMIT_BYTES = 8 << 20
"""Largest YAML file that is read [bytes]."""

DIGEST = "sha256"
"""Key of a JSON file for the digest of the rest of its content."""


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses aliases and remembers the line of every key."""

    def __init__(self, stream: str, source: str, error: type[ParedownError]) -> None:
        super().__init__(stream)
        self.lines: dict[tuple[Any, ...], int] = {}
        self.faults: list[str] = []
        self.source, self.error = source, error

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]  # the stub has no types here
            raise self.error(f"{self.source}:{line}: aliases (*name) are not supported; write the value out")
        return super().compose_node(parent, index)

    def note(self, node: Any, place: tuple[Any, ...]) -> None:
        """Remembers the line of each node and collects duplicate keys."""
        self.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                self.note(item, (*place, i))
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue  # the constructor refuses such a key
                if key.value in seen:
                    self.faults.append(
                        f"{self.source}:{key.start_mark.line + 1}: duplicate key {key.value!r}; remove one"
                    )
                seen.add(key.value)
                self.note(value, (*place, key.value))
                self.lines[(*place, key.value)] = key.start_mark.line + 1


def read_yaml(path: Path, model: type[M], error: type[ParedownError]) -> M:
    """The content of a YAML file, validated.

    Args:
        path: The file.
        model: Class that the content must satisfy.
        error: Class of the error for an invalid file.

    Raises:
        ParedownError: Of class ``error``, if the file cannot be read or is invalid. The message has one line per fault,
            each with file and line number.
    """
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise error(
                f"{path} is larger than {LIMIT_BYTES >> 20} MiB, the limit for such a YAML file; check the path"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise error(f"{path} cannot be read ({fault}); give a YAML file") from None
    try:
        loader = _Loader(text, str(path), error)
        node = loader.get_single_node()
        if node is None:
            raise error(f"{path} is empty; the documentation lists the keys of a file")
        loader.note(node, ())
        data = loader.construct_document(node)
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise error(f"{path}{line}: invalid YAML: {getattr(fault, 'problem', fault)}") from None
    except RecursionError:
        raise error(f"{path}: nested too deeply; write it flatter") from None
    except ParedownError:
        raise
    except ValueError as fault:  # a date or a number that Python cannot hold
        raise error(f"{path}: {fault}; write such a value in quotes") from None
    faults = loader.faults
    try:
        value = model.model_validate(data)
    except RecursionError:
        raise error(f"{path}: nested too deeply; write it flatter") from None
    except ValidationError as invalid:
        faults = faults + [_fault(path, loader.lines, dict(fault)) for fault in invalid.errors()]
    except ParedownError as invalid:
        faults = [*faults, f"{path}: {invalid}"]
    if faults:
        raise error("\n".join(faults))
    return value


def _fault(path: Path, lines: Mapping[tuple[Any, ...], int], fault: Mapping[str, Any]) -> str:
    place = tuple(fault["loc"])
    known = place
    while known not in lines and known:
        known = known[:-1]
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "unknown key; remove it or correct its spelling"
    return f"{path}:{lines.get(known, 1)}: {'.'.join(map(str, place)) or 'file'}: {message}"


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
