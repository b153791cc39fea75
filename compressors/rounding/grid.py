"""The quantization grid, the result of rounding, and the registry of rounding algorithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paredown.space.statistics import Statistic, Statistics
from paredown.space.system.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A uniform quantization grid, with one scale per group of weights in a row.

    Attributes:
        bits: Bits per code.
        group: Weights along in_features that share a scale.
        symmetric: True if the zero point is the middle code; otherwise each group has its own zero point.
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
        """The middle code: the zero point of a symmetric grid."""
        return 1 << (self.bits - 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounded:
    """A matrix on a grid: ``(code - zero) * scale``, or ``levels[code] * scale`` if the algorithm defines levels.

    Attributes:
        codes: Integers in ``[0, 2**bits)``, shape ``(rows, columns)``.
        scale: Shape ``(rows, groups)``; float32 tensor of values that bfloat16 represents exactly.
        zero: Integers, shape ``(rows, groups)``.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor


Round = Callable[["Tensor", Grid, Statistics], Rounded]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """A rounding algorithm.

    Attributes:
        round: Rounds a float32 matrix ``(rows, columns)``; does not modify it.
        needs: Statistics that it requires.
        levels: Value of each code if they are not evenly spaced; None for integers.
        fault: Says why it cannot use a grid, with the remedy; None if it can.
    """

    round: Round
    needs: frozenset[Statistic] = frozenset()
    levels: tuple[float, ...] | None = None
    fault: Callable[[Grid], str | None] = lambda _: None


roundings: Registry[Rounding] = Registry("algorithm", group="paredown.roundings", entry=Rounding)


def stored(scale: Tensor) -> Tensor:
    """The scale rounded to bfloat16; never zero, since magnitudes below 1e-30 become 1e-30."""
    import torch

    scale = torch.where(scale.abs() < 1e-30, torch.full_like(scale, 1e-30), scale)
    return scale.to(torch.bfloat16).float()


def codes_of(grouped: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> Tensor:
    """The nearest codes; all arguments have shape ``(rows, groups, group)`` or a last dimension of 1."""
    return (grouped / scale + zero).round().clamp(0, grid.top)
