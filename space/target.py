"""The runtimes that must run the result."""

from __future__ import annotations

from dataclasses import dataclass

from paredown.space.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A runtime and what it asks of a plan.

    Attributes:
        name: As on the command line.
        ties: Groups of module names (last part) that it fuses, which therefore must take one choice.
    """

    name: str
    ties: tuple[tuple[str, ...], ...] = ()


targets: Registry[Target] = Registry("target")
for _target in (Target(name="paredown"), Target(name="transformers")):
    targets.register(_target.name)(_target)
