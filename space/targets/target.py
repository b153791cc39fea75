"""Targets: the runtimes that a plan can be made for."""

from __future__ import annotations

from dataclasses import dataclass

from paredown.space.system.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A runtime and its constraints on a plan.

    Attributes:
        name: Name on the command line.
        ties: Groups of modules, by the last part of their names, that the runtime fuses; each group must take one
            choice.
    """

    name: str
    ties: tuple[tuple[str, ...], ...] = ()


targets: Registry[Target] = Registry("target")
for _target in (Target(name="paredown"), Target(name="transformers")):
    targets.register(_target.name)(_target)
