"""YAML files that people write, and the YAML that paredown writes.

A scalar without quotes is a number or a boolean only if YAML 1.1 and YAML 1.2 agree on that. Thus ``off``, ``2:4``,
``07:30`` and digests such as ``12e34`` are strings, whichever version a file was written for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.tag import Tag

from paredown.space.errors import ParedownError

M = TypeVar("M", bound=BaseModel)
Place = tuple[Any, ...]
"""Keys and indices that lead to a value of a file."""

LIMIT_BYTES = 8 << 20
"""Largest YAML file that is read [bytes]."""

AGREED = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    "float": re.compile(
        r"[-+]?[0-9]+\.[0-9]*([eE][-+][0-9]+)?|\.[0-9]+([eE][-+][0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}
"""Scalars without quotes that have the same type in YAML 1.1 and YAML 1.2, by type; all others are read as strings."""


class _AgreedTypes(VersionedResolver):
    """Types of scalars that both versions of YAML agree on."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is ScalarNode and implicit[0]:
            name = next((name for name, pattern in AGREED.items() if pattern.fullmatch(value)), "str")
            return Tag(suffix=f"tag:yaml.org,2002:{name}")
        return super().resolve(kind, value, implicit)


class _UnsupportedError(MarkedYAMLError):
    """Valid YAML that no plan or study needs."""


class _Composer(Composer):
    """Refuses aliases, by which a small file can describe a huge value, and tags, which ask for other types."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event, problem = self.parser.peek_event(), ""
        if isinstance(event, AliasEvent):
            problem = "aliases (*name) are not supported; write the value out"
        elif event.tag is not None:
            problem = "tags (!name) are not supported; leave them out"
        if problem:
            raise _UnsupportedError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


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
    data, lines = _parsed(path, error)
    faults = [
        f"{path}:{line}: duplicate key {place[-1]!r}; remove one"
        for place, (_, *others) in lines.items()
        for line in others
    ]
    try:
        value = model.model_validate(data)
    except RecursionError:
        raise error(f"{path}: nested too deeply; write it flatter") from None
    except ValidationError as invalid:
        faults += [_fault(path, lines, dict(fault)) for fault in invalid.errors()]
    except ParedownError as invalid:
        faults.append(f"{path}: {invalid}")
    if faults:
        raise error("\n".join(faults))
    return value


def _parsed(path: Path, error: type[ParedownError]) -> tuple[Any, dict[Place, list[int]]]:
    """The content of a YAML file, and the lines of every value: a duplicate key has several, and the first counts.

    Raises:
        ParedownError: Of class ``error``, if the file cannot be read, is empty, is not YAML, or has aliases or tags.
    """
    reader = YAML(typ="safe", pure=True)
    reader.Resolver, reader.Composer, reader.allow_duplicate_keys = _AgreedTypes, _Composer, True
    reader.composer.warn_double_anchors = False  # nothing can refer to them
    lines: dict[Place, list[int]] = {}
    text = _text_of(path, error)
    try:
        node = reader.compose(text)
        if node is not None:
            _note(node, node.start_mark.line + 1, (), lines)
            return reader.constructor.construct_document(node), lines
    except YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        kind = "" if isinstance(fault, _UnsupportedError) else "invalid YAML: "
        problem = getattr(fault, "problem", None) or str(fault).partition("\n")[0]
        raise error(f"{path}{f':{mark.line + 1}' if mark else ''}: {kind}{problem}") from None
    except RecursionError:
        raise error(f"{path}: nested too deeply; write it flatter") from None
    except ValueError as fault:  # a number that Python cannot hold
        raise error(f"{path}: {fault}; write such a value in quotes") from None
    raise error(f"{path} is empty; the documentation lists the keys of a file")


def _text_of(path: Path, error: type[ParedownError]) -> str:
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise error(
                f"{path} is larger than {LIMIT_BYTES >> 20} MiB, the limit for such a YAML file; check the path"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise error(f"{path} cannot be read ({fault}); give a YAML file") from None


def _note(node: Node, line: int, place: Place, lines: dict[Place, list[int]]) -> None:
    """Adds the line of a value, and those of the values within; that of a key's value is the key's."""
    lines.setdefault(place, []).append(line)
    if len(lines[place]) > 1:
        return
    if isinstance(node, SequenceNode):
        for i, item in enumerate(node.value):
            _note(item, item.start_mark.line + 1, (*place, i), lines)
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise MarkedYAMLError(problem="found unhashable key", problem_mark=key.start_mark)
            _note(value, key.start_mark.line + 1, (*place, key.value), lines)


def _fault(path: Path, lines: Mapping[Place, list[int]], fault: Mapping[str, Any]) -> str:
    place = tuple(fault["loc"])
    known = place
    while known not in lines and known:
        known = known[:-1]
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "unknown key; remove it or correct its spelling"
    return f"{path}:{lines[known][0]}: {'.'.join(map(str, place)) or 'file'}: {message}"


class _Dumper(yaml.SafeDumper):
    """Writes YAML 1.1, and quotes what YAML 1.2 takes for a number too."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"([-+]?([0-9_]+(\.[0-9_]*)?|\.[0-9_]+)([eE][-+]?[0-9]+)?|[-+]?0o[0-7_]+)$"),
    list("-+.0123456789"),
)


def yaml_text(data: Mapping[str, Any], *, flow_leaves: bool = False) -> str:
    """The text of a YAML file, keys in their order.

    Args:
        data: Content of plain types.
        flow_leaves: Whether lists and mappings of scalars take one line: ``{method: quantize, bits: 4}``.
    """
    flow = None if flow_leaves else False
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=flow, width=140, allow_unicode=True)
