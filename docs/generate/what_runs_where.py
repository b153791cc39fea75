"""Tables of which choice runs where, generated from the methods' own declarations so that no second list can differ."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import paredown.compressors.methods  # noqa: F401 - registers the methods
from docs.generate.schema import keys, summary
from paredown.compressors.model.kernels import kernel_of
from paredown.compressors.pruning.pattern import criteria
from paredown.compressors.rounding.grid import roundings
from paredown.space.choice import Choice, methods
from paredown.space.layouts import choice_members, inner, site_fault
from paredown.space.site import Kind, Member, Site
from paredown.space.statistics import Statistic
from paredown.space.targets.target import targets
from paredown.space.tensors import TensorSpec

WIDTH = 1024
"""Width of the example sites [features]."""


def _matrix(name: str, kind: Kind, class_name: str, tied: tuple[str, ...] = ()) -> Site:
    member = Member(
        module=name,
        shape=(WIDTH, WIDTH),
        dtype="bfloat16",
        class_name=class_name,
        transposed=class_name == "Conv1D",
        tied=tied,
    )
    return Site(name=name, kind=kind, block=0, members=(member,))


def _structured(kind: Kind, shapes: dict[str, tuple[int, int]], heads: tuple[int, int] | None = None) -> Site:
    members = tuple(Member(module=name, shape=shape, dtype="bfloat16") for name, shape in shapes.items())
    norm = {"norm.weight": TensorSpec("bfloat16", (WIDTH,))}
    return Site(name=kind, kind=kind, block=0, members=members, norm=norm, homogeneous=True, heads=heads)


NETWORK = {"gate": (2 * WIDTH, WIDTH), "up": (2 * WIDTH, WIDTH), "down": (WIDTH, 2 * WIDTH)}
HEADS = {"q": (WIDTH, WIDTH), "k": (WIDTH // 2, WIDTH), "v": (WIDTH // 2, WIDTH), "o": (WIDTH, WIDTH)}


EXAMPLES: dict[str, Site] = {
    "`Linear`, untied head": _matrix("linear", "linear", "Linear"),
    "`Conv1D`": _matrix("conv", "linear", "Conv1D"),
    "embedding": _matrix("embedding", "embedding", "Embedding"),
    "tied embedding": _matrix("tied", "embedding", "Embedding", ("head",)),
    "feed-forward network": _structured("ffn", NETWORK),
    "attention": _structured("attention", HEADS, (16, 8)),
    "block": Site(name="block", kind="block", block=0, members=()),
}
"""One site of each sort that targets treat differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Choices of one method that all targets treat alike.

    Attributes:
        choices: The choices in their text form.
        targets: Names of the targets that run them, by sort of site; empty if the method is for other sites.
        runs_as: What the target ``paredown`` computes with.
    """

    choices: tuple[str, ...]
    targets: tuple[tuple[str, ...], ...]
    runs_as: str


def rows() -> list[Row]:
    """Rows of the table: every choice that a method offers at an example site; choices treated alike share a row."""
    found: dict[tuple[str, tuple[tuple[str, ...], ...], str], list[str]] = {}
    for choice in _typical():
        where = tuple(_runs(site, choice) for site in EXAMPLES.values())
        found.setdefault((choice.method, where, runs_as(choice)), []).append(str(choice))
    return [Row(choices=tuple(choices), targets=where, runs_as=how) for (_, where, how), choices in found.items()]


def runs_as(choice: Choice) -> str:
    """What the target ``paredown`` computes with under a choice, in words."""
    if any(step.storage.storage_only for step in choice.steps):
        return "storage only: dense"
    if choice.method == "drop":
        return "a smaller model"
    if site := next((site for site in EXAMPLES.values() if site.structured and site.kind in choice.kinds), None):
        left = choice_members(site, choice)
        kernels = " and ".join(sorted({_words(kernel_of(inner(site, choice), shape)) for _, shape in left}))
        return kernels if all(shape == member.shape for member, shape in left) else f"narrower layers: {kernels}"
    return _words(kernel_of(choice, (WIDTH, WIDTH)))


def table() -> str:
    """The table in Markdown."""
    lines = [
        "| choice | " + " | ".join(EXAMPLES) + " | in target `paredown` runs as |",
        "| --- " * (len(EXAMPLES) + 2) + "|",
    ]
    for row in rows():
        cells = [
            "-" if not names else "every target" if len(names) == len(list(targets)) else ", ".join(names)
            for names in row.targets
        ]
        lines.append(
            "| " + " | ".join(["<br>".join(f"`{choice}`" for choice in row.choices), *cells, row.runs_as]) + " |"
        )
    return "\n".join(lines)


def descriptions() -> str:
    """Every method in Markdown: its knobs with their values, its algorithms, and the papers that define them."""
    return "\n\n".join("\n".join(_description(methods[name])) for name in methods)


def _description(method: type[Choice]) -> list[str]:
    """The lines of one method."""
    lines = [f"### `{method.method}`", "", *_filled(summary(method)), "", f"Sites: {', '.join(sorted(method.kinds))}."]
    typical = [choice for choice in _typical() if choice.method == method.method]
    if typical and all(choice.storage.storage_only for choice in typical):
        lines[-1] += " The saving is on disk only."
    schema = method.model_json_schema()["properties"]
    knobs = [(knob, default, text) for knob, default, text in keys(method) if knob != "then"]
    algorithms = _algorithms(method)
    if knobs:
        lines += ["", "| knob | default | values | meaning |", "| --- | --- | --- | --- |"]
        for knob, default, text in knobs:
            values = ", ".join(algorithms) if knob == "algorithm" and algorithms else _values(schema[knob])
            lines.append(f"| `{knob}` | {default} | {values} | {_markdown(text)} |")
    if algorithms:
        lines += ["", "| `algorithm` | statistics | meaning | source |", "| --- | --- | --- | --- |"]
        for name, (needs, function) in algorithms.items():
            statistics = ", ".join(f"`{one}`" for one in sorted(needs)) or "none"
            lines.append(f"| `{name}` | {statistics} | {_summary(function)} | {_source(function)} |")
    if source := _source(method):
        lines += ["", *_filled(f"Source: {source}")]
    return lines


def _algorithms(method: type[Choice]) -> dict[str, tuple[frozenset[Statistic], Callable[..., Any]]]:
    """Registered values of the knob ``algorithm``, each with its statistics and its function; may be empty."""
    if method.method == "quantize":
        return {name: (roundings[name].needs, roundings[name].round) for name in roundings}
    if method.method == "prune":
        return {name: (criteria[name].needs, criteria[name].prune) for name in criteria}
    return {}


def _values(schema: Mapping[str, Any]) -> str:
    """The values that a JSON Schema allows, such as ``2 to 256`` or ``svd, whitened``; null is left out."""
    if "anyOf" in schema:
        return ", or ".join(_values(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema["type"] == "boolean":
        return "true, false"
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['minimum']:g} to {schema['maximum']:g}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {schema[limit]:g}" for limit, word in words.items() if limit in schema]
    return " and ".join(limits) or str(schema["type"])


def _summary(function: Callable[..., Any]) -> str:
    """The first paragraph of a function's docstring, for a table cell."""
    return _markdown(" ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split()))


def _source(thing: Any) -> str:
    """The ``Source:`` section of a docstring as one line; empty if there is none."""
    section = (inspect.getdoc(thing) or "").partition("\nSource:\n")[2]
    return _markdown(" ".join(line.strip() for line in section.partition("\n\n")[0].splitlines()))


def _markdown(text: str) -> str:
    """A docstring's text for a table cell: code in single backticks, bars escaped."""
    return text.replace("``", "`").replace("|", "\\|")


def _filled(text: str) -> list[str]:
    """A paragraph in lines of at most 118 columns."""
    return textwrap.wrap(_markdown(text), 118, break_long_words=False, break_on_hyphens=False)


def _typical() -> Iterator[Choice]:
    """Choices that the methods offer in the default spaces of the example sites; otherwise a method's own examples."""
    for name in methods:
        method, offered = methods[name], dict[Choice, None]()
        for site in EXAMPLES.values():
            if site.kind in method.kinds:
                offered |= dict.fromkeys(method.site_offers(site))
        yield from offered or method.examples()


def _runs(site: Site, choice: Choice) -> tuple[str, ...]:
    return tuple(name for name in targets if site_fault(site, choice, targets[name]) is None)


def _words(kernel: str) -> str:
    """Readable name of a kernel: ``lowrank-96-int8-int8`` is ``two factors: int8``."""
    return _read(iter(kernel.split("-")))


def _read(parts: Iterator[str]) -> str:
    """Readable name of the next kernel, including its parts."""
    name = next(parts)
    if name not in ("lowrank", "residual"):
        return {"int4": "int4 kernel", "int8": "int8 kernel"}.get(name, name)
    next(parts)  # the rank
    right, left = (_read(parts).removesuffix(" kernel") for _ in range(2))
    factors = f"two factors: {right}" if right == left else f"two factors: {right} and {left}"
    return factors if name == "lowrank" else f"{_read(parts)} plus {factors}"
