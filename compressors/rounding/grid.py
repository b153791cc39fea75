"""The grid that weights are rounded to, what rounding gives, and the algorithms by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paredown.space.registry import Registry
from paredown.space.statistics import Statistic, Statistics

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Steps of one size for every group of weights of a row.

    Attributes:
        bits: Of a code.
        group: Weights that share a scale, along in_features.
        symmetric: Whether the zero point is the middle of the codes; otherwise each group has its own.
    """

    bits: int
    group: int
    symmetric: bool = True

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    @property
    def half(self) -> int:
        """The middle: the zero point where there is none."""
        return 1 << (self.bits - 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounded:
    """A matrix on a grid: ``(code - zero) * scale``, or ``levels[code] * scale`` for algorithms with levels of their own.

    Attributes:
        codes: Integers in ``[0, 2**bits)``, shape ``(rows, columns)``.
        scale: Shape ``(rows, groups)``; float32 holding what bfloat16 can.
        zero: Integers, shape ``(rows, groups)``.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor


Round = Callable[["Tensor", Grid, Statistics], Rounded]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """An algorithm.

    Attributes:
        round: Rounds a float32 matrix ``(rows, columns)``, which it does not modify.
        needs: Statistics that it asks for.
        levels: Its own values in place of evenly spaced ones, by code; None for integers.
        fault: Why a grid is not for it, with the remedy; None where it is.
    """

    round: Round
    needs: frozenset[Statistic] = frozenset()
    levels: tuple[float, ...] | None = None
    fault: Callable[[Grid], str | None] = lambda _: None


roundings: Registry[Rounding] = Registry("algorithm")


def stored(scale: Tensor) -> Tensor:
    """A scale as bfloat16 holds it, never zero."""
    import torch

    scale = torch.where(scale.abs() < 1e-30, torch.full_like(scale, 1e-30), scale)
    return scale.to(torch.bfloat16).float()


def codes_of(grouped: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> Tensor:
    """The nearest codes; all of shape ``(rows, groups, group)`` or with a last dimension of 1."""
    return (grouped / scale + zero).round().clamp(0, grid.top)
