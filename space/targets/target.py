"""Targets, as values: what a runtime loads, ties, and keeps in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from paredown.space.site import Site
from paredown.space.system.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What a step of a choice leaves for the runtime to load.

    Attributes:
        method: Name of the method, for messages.
        form: ``dense`` matrices in the original's places; integer ``codes`` with a scale per group; ``removed``, if the
            whole site is left out; or the method's ``own`` tensors.
        bits: Bits per code.
        group_size: Weights that share a scale; ``channel`` for a whole row.
        zero_points: Whether each group has one.
        levels: Name of the levels that codes stand for; empty for integers.
        storage_only: Whether it saves bytes on disk only: no runtime computes faster with it.
    """

    method: str
    form: Literal["dense", "codes", "removed", "own"]
    bits: int = 0
    group_size: int | Literal["channel"] = "channel"
    zero_points: bool = False
    levels: str = ""
    storage_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A runtime and its constraints on a plan.

    Attributes:
        name: Name on the command line and in files.
        format: Name of the format that its model folders are written in.
        engine: Name of the engine that runs them, with which they are verified.
        fault: Why the runtime cannot load what is stored of a site, with the remedy; None if it can.
        usage: Python code that loads ``{folder}``, which holds a ``{architecture}``.
        ties: Groups of modules, by the last part of their names, that the runtime fuses; each group must take one
            choice.
        decompresses: Whether compressed matrices are dense in memory once they are loaded, so that only dropped blocks
            change how long a model computes.
        dtype: Dtype of the activations, and in memory of everything that is not compressed; None for the original's.
    """

    name: str
    format: str
    engine: str
    fault: Callable[[Site, Storage], str | None]
    usage: str
    ties: tuple[tuple[str, ...], ...] = ()
    decompresses: bool = False
    dtype: str | None = None


targets: Registry[Target] = Registry("target", entry=Target, own_name="name", group="paredown.targets")
