"""Unstructured and semi-structured pruning of single weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

import paredown.compressors.pruning  # noqa: F401 - registers the algorithms
from paredown.compressors.numerics.bit_packing import pack, packed_columns, unpack
from paredown.compressors.pruning.pattern import Pattern, criteria
from paredown.space.choice import Choice, MatrixChoice, Part, Shape, methods
from paredown.space.site import Kind, Member
from paredown.space.statistics import NO_STATISTICS, Statistic, Statistics
from paredown.space.targets.target import Storage
from paredown.space.tensors import Layout, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor


@methods.register("prune")
class Prune(MatrixChoice):
    """Keeps the most important weights, equally many in each row, and stores their values and positions.

    ``magnitude`` keeps the largest weights, ``wanda`` those that contribute most to the output. ``sparsegpt`` keeps
    those whose loss the others can compensate least, and updates the others to compensate. Positions are stored as a
    bitmap; with a pattern ``N:M``, as the index of the combination kept of every M neighbours.
    """

    method: ClassVar[str] = "prune"
    without_statistics: ClassVar[Mapping[str, Any] | None] = {"algorithm": "magnitude"}

    sparsity: float = Field(gt=0, lt=1, description="share of the weights that are removed")
    pattern: Literal["row", "1:4", "2:4", "4:8"] = Field(
        default="row", description="row: keep equally many weights in each row; N:M: keep N of every M neighbours"
    )
    algorithm: str = Field(default="magnitude", description="criterion that selects the weights to keep")

    @field_validator("algorithm")
    @classmethod
    def _known(cls, value: str) -> str:
        return criteria.checked(value)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.pattern != "row":
            kept, group = self._ratio
            if self.sparsity != 1 - kept / group:
                raise ValueError(
                    f"pattern {self.pattern} means sparsity {1 - kept / group}, got {self.sparsity}; "
                    "set that sparsity or pattern=row"
                )
        return self

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Default space: half of the weights removed, the rest in 4 bits."""
        then = {"method": "quantize", "bits": 4}
        return (cls.build({"sparsity": 0.5, "algorithm": "sparsegpt", "then": then}),) if kind == "linear" else ()

    def fault(self, shape: Shape) -> str | None:
        """Why a matrix cannot take it: the pattern does not divide the row, or ``then`` is calibrated on inputs.

        The packed values have no input of their own, so a later step can use their importance only.
        """
        if self.pattern != "row" and shape[1] % self._ratio[1]:
            return f"pattern {self.pattern} does not divide in_features {shape[1]}; use pattern=row"
        if self.then and (asked := self.then.needs - {"importance"}):
            return (
                f"'{self.then}' needs the {min(asked)} of its inputs, but the values of pruned rows have none; "
                "use an algorithm that needs none"
            )
        return None

    @property
    def uses(self) -> frozenset[Statistic]:
        """Statistics that the criterion requires."""
        return criteria[self.algorithm].needs

    @property
    def storage(self) -> Storage:
        """Smaller on disk only: no kernel skips the zeros."""
        return Storage(method=self.method, form="own", storage_only=True)

    @property
    def _ratio(self) -> tuple[int, int]:
        kept, _, group = self.pattern.partition(":")
        return int(kept), int(group)

    def places(self, columns: int) -> Pattern:
        """The sparsity pattern for rows of this length."""
        if self.pattern == "row":
            return Pattern(kept=max(1, round(columns * (1 - self.sparsity))), group=columns)
        kept, group = self._ratio
        return Pattern(kept=kept, group=group)

    def own(self, shape: Shape, dtype: str) -> Layout:
        """One bit per weight, rows padded to bytes; for N:M, one packed index per group."""
        rows, columns = shape
        if self.pattern == "row":
            return {"bitmap": TensorSpec("uint8", (rows, -(-columns // 8)))}
        table = combinations_of(self.places(columns))
        return {"places_packed": TensorSpec("int32", (rows, packed_columns(columns // len(table[0]), _bits(table))))}

    def parts(self, shape: Shape) -> Mapping[str, Shape]:
        """The kept values, row by row."""
        rows, columns = shape
        places = self.places(columns)
        return {"values": (rows, columns // places.group * places.kept)}

    def encode(
        self, weight: Tensor, statistics: Statistics = NO_STATISTICS
    ) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """Positions, and the kept values in column order.

        Each value's importance comes from the statistics; without one, from the mean square of its input if the
        criterion uses that.
        """
        import torch

        rows, columns = weight.shape
        places = self.places(columns)
        pruned = criteria[self.algorithm].prune(weight, places, statistics)
        importance = statistics.importance
        if importance is None and "second_moment" in self.uses:
            importance = statistics["second_moment"].diagonal().expand(rows, columns)
        known = NO_STATISTICS if importance is None else Statistics(importance=importance[pruned.mask].view(rows, -1))
        values = Part(matrix=pruned.weight[pruned.mask].view(rows, -1), statistics=known)
        if self.pattern == "row":
            padded = torch.nn.functional.pad(pruned.mask.byte(), (0, -columns % 8))
            return {"bitmap": _as_numbers(padded, 8).to(torch.uint8)}, {"values": values}
        table = combinations_of(places)
        number = torch.zeros(1 << places.group, dtype=torch.int64)
        number[_as_numbers(torch.tensor(table), places.group).flatten()] = torch.arange(len(table))
        chosen = number[_as_numbers(pruned.mask, places.group)]
        return {"places_packed": pack(chosen, _bits(table))}, {"values": values}

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The values at their positions, zeros elsewhere."""
        import torch

        if self.pattern == "row":
            mask = ((own["bitmap"].unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8)) & 1).bool()
        else:
            table = combinations_of(self.places(shape[1]))
            mask = torch.tensor(table)[unpack(own["places_packed"], _bits(table), shape[1] // len(table[0]))]
        return torch.zeros(shape).masked_scatter_(mask.flatten(1)[:, : shape[1]], parts["values"].float())


def combinations_of(places: Pattern) -> list[list[bool]]:
    """All kept/dropped masks of a group in a fixed order; the stored indices refer to this list."""
    return [[place in kept for place in range(places.group)] for kept in combinations(range(places.group), places.kept)]


def _bits(table: Sequence[Sequence[bool]]) -> int:
    return (len(table) - 1).bit_length()


def _as_numbers(mask: Tensor, group: int) -> Tensor:
    """Bits of each group as one integer, first position lowest; shape ``(rows, columns / group)``."""
    import torch

    return (mask.view(len(mask), -1, group).long() << torch.arange(group)).sum(-1)
