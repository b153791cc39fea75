"""What runs where: a table made from the methods' own statements, so that no second list can differ from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.compressors.kernels import kernel_of
from paredown.space.choice import KEEP, Choice, choice_members, methods, site_fault
from paredown.space.schema import keys, summary
from paredown.space.site import Kind, Member, Site
from paredown.space.target import targets

WIDTH = 1024


def _matrix(name: str, kind: Kind, class_name: str, tied: tuple[str, ...] = ()) -> Site:
    member = Member(
        module=name, shape=(WIDTH, WIDTH), dtype="bfloat16", class_name=class_name, transposed=class_name == "Conv1D", tied=tied
    )
    return Site(name=name, kind=kind, block=0, members=(member,))


def _network() -> Site:
    shapes = {"gate": (2 * WIDTH, WIDTH), "up": (2 * WIDTH, WIDTH), "down": (WIDTH, 2 * WIDTH)}
    members = tuple(Member(module=name, shape=shape, dtype="bfloat16") for name, shape in shapes.items())
    return Site(name="mlp", kind="ffn", block=0, members=members)


EXAMPLES: dict[str, Site] = {
    "`Linear`, untied head": _matrix("linear", "linear", "Linear"),
    "`Conv1D`": _matrix("conv", "linear", "Conv1D"),
    "embedding": _matrix("embedding", "embedding", "Embedding"),
    "tied embedding": _matrix("tied", "embedding", "Embedding", ("head",)),
    "feed-forward network": _network(),
    "block": Site(name="block", kind="block", block=0, members=()),
}
"""A site of each sort that targets treat differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Choices of one method that all targets treat alike.

    Attributes:
        choices: In their text form.
        targets: Names of the targets that run them, by sort of site; empty where the method is for other sites.
        runs_as: What target ``paredown`` computes with.
    """

    choices: tuple[str, ...]
    targets: tuple[tuple[str, ...], ...]
    runs_as: str


def rows() -> list[Row]:
    """The table: every choice that a method offers at one of the example sites, like ones together."""
    found: dict[tuple[str, tuple[tuple[str, ...], ...], str], list[str]] = {}
    for choice in _typical():
        where = tuple(_runs(site, choice) for site in EXAMPLES.values())
        found.setdefault((choice.method, where, runs_as(choice)), []).append(str(choice))
    return [Row(choices=tuple(choices), targets=where, runs_as=how) for (_, where, how), choices in found.items()]


def runs_as(choice: Choice) -> str:
    """What target ``paredown`` computes with where the choice is taken, in words."""
    if any(step.storage_only for step in choice.steps):
        return "storage only: dense"
    if choice.method == "drop":
        return "a smaller model"
    if choice.kinds == {"ffn"}:
        site = EXAMPLES["feed-forward network"]
        kernels = {_words(kernel_of(choice.then or KEEP, shape)) for _, shape in choice_members(site, choice)}
        return f"narrower layers: {' and '.join(sorted(kernels))}"
    return _words(kernel_of(choice, (WIDTH, WIDTH)))


def table() -> str:
    """The table in Markdown."""
    lines = ["| choice | " + " | ".join(EXAMPLES) + " | in target `paredown` runs as |", "| --- " * (len(EXAMPLES) + 2) + "|"]
    for row in rows():
        cells = ["-" if not names else "every target" if len(names) == len(list(targets)) else ", ".join(names) for names in row.targets]
        lines.append("| " + " | ".join(["<br>".join(f"`{choice}`" for choice in row.choices), *cells, row.runs_as]) + " |")
    return "\n".join(lines)


def descriptions() -> str:
    """Every method with its knobs, in Markdown."""
    parts = []
    for name in methods:
        method = methods[name]
        lines = [f"### `{name}`", "", summary(method), "", f"Sites: {', '.join(sorted(method.kinds))}."]
        typical = [choice for choice in _typical() if choice.method == name]
        if typical and all(choice.storage_only for choice in typical):
            lines[-1] += " The saving is on disk only."
        knobs = [(knob, default, text) for knob, default, text in keys(method) if knob != "then"]
        if knobs:
            lines += ["", "| knob | default | meaning |", "| --- | --- | --- |"]
            lines += [f"| `{knob}` | {default} | {text} |" for knob, default, text in knobs]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _typical() -> Iterator[Choice]:
    """What the methods put into the default spaces of the example sites, and each method that offers nothing there, plain."""
    for name in methods:
        method, offered = methods[name], dict[Choice, None]()
        for site in EXAMPLES.values():
            if site.kind in method.kinds and site.members:
                offered |= dict.fromkeys(method.offers(site.members[-1], site.kind))
        if not offered and not any(field.is_required() for field in method.model_fields.values()):
            offered[method()] = None
        yield from offered


def _runs(site: Site, choice: Choice) -> tuple[str, ...]:
    return tuple(name for name in targets if site_fault(site, choice, targets[name]) is None)


def _words(kernel: str) -> str:
    """A kernel for people: ``lowrank-96-int8-int8`` is two factors."""
    if kernel.startswith("lowrank-"):
        right, left = kernel.split("-")[2:4]
        return f"two factors: {right}" if right == left else f"two factors: {right} and {left}"
    return {"int4": "int4 kernel", "int8": "int8 kernel"}.get(kernel, kernel)
