"""Structured pruning: selects the neurons or heads that stay, and refits the matrix that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from paredown.compressors.numerics.hessian import no_moment
from paredown.space.choice import Shape
from paredown.space.statistics import Statistic, Statistics
from paredown.space.structure_choice import Structure, StructureChoice

if TYPE_CHECKING:
    from torch import Tensor

ATTEMPTS = 5
"""Number of dampings that are tried, each ten times the previous one."""

DAMPING = 0.001
"""First damping, added to the diagonal of the second moment, as a share of the diagonal's mean."""

SHARE = 32
"""Each round removes one in this many of the remaining groups (at least one), then refits the others."""


class Narrowing(StructureChoice):
    """A method that removes groups of rows from the matrices that make them, and the columns that read them.

    Source:
        The matrix that reads them is updated by least squares with the second moment of its inputs, as the optimal
        brain surgeon updates the rest for a group of columns: Hassibi & Stork, 1992, "Second order derivatives for
        network pruning: Optimal Brain Surgeon".
    """

    sparsity: float = Field(gt=0, lt=1, description="fraction of the neurons or heads to remove")
    algorithm: Literal["magnitude", "activation", "reconstruct"] = Field(
        default="magnitude",
        description="magnitude: remove the smallest weights; activation: remove the smallest outputs; "
        "reconstruct: remove those that the others can best make up for, and refit the others",
    )

    @property
    def uses(self) -> frozenset[Statistic]:
        """The second moment of the reading matrix's inputs; nothing for ``magnitude``, which compares weights only."""
        return frozenset() if self.algorithm == "magnitude" else frozenset({"second_moment"})

    def stay(self, reader: Tensor, statistics: Statistics, size: int, kept: int) -> Tensor:
        """Indices of the groups of ``size`` adjacent columns that stay, ascending; chosen by the reader's inputs."""
        if self.algorithm == "reconstruct":
            return surgery(reader, statistics["second_moment"], size, kept)
        return strongest(output_energy(reader, statistics["second_moment"], size), kept)

    def narrowed(self, original: Structure, stay: Tensor, groups: int) -> Structure:
        """The structure with only the groups that stay, in their order.

        Args:
            original: The matrices that make the groups, and last the one that reads them; not modified.
            stay: Indices of the groups that stay, ascending.
            groups: Number of groups in the original.
        """
        *makers, reader = original.matrices
        *known, read = original.statistics
        *added, bias = original.biases
        rows = [within(stay, len(maker) // groups) for maker in makers]
        reader, read = self.read(reader, read, within(stay, reader.shape[1] // groups))
        return Structure(
            matrices=[*(maker[which] for maker, which in zip(makers, rows, strict=True)), reader],
            biases=[*(one if one is None else one[which] for one, which in zip(added, rows, strict=True)), bias],
            statistics=[*(found.of_rows(which) for found, which in zip(known, rows, strict=True)), read],
        )

    def read(self, reader: Tensor, statistics: Statistics, stay: Tensor) -> tuple[Tensor, Statistics]:
        """The reading matrix on the columns that stay, refitted under ``reconstruct``, and its statistics.

        Args:
            reader: Shape ``(out_features, in_features)``; not modified.
            statistics: Statistics of the reader.
            stay: Indices of its columns that stay.
        """
        fitted = self.algorithm == "reconstruct"
        matrix = reconstructed(reader, statistics["second_moment"], stay) if fitted else reader[:, stay]
        return matrix, statistics.of_columns(stay)


def rounded(shapes: Sequence[Shape], bits: int) -> dict[str, object]:
    """The ``quantize`` step that may follow in a default space: ``bits`` in the largest groups that divide all rows."""
    group = next((group for group in (64, 32) if all(columns % group == 0 for _, columns in shapes)), "channel")
    return {"method": "quantize", "bits": bits, "group_size": group, "algorithm": "gptq"}


def strongest(importance: Tensor, kept: int) -> Tensor:
    """Indices of the ``kept`` most important groups, ascending."""
    stay: Tensor = importance.topk(kept).indices.sort().values
    return stay


def within(groups: Tensor, size: int) -> Tensor:
    """Indices of all columns or rows in these groups of ``size`` neighbours."""
    import torch

    return (groups[:, None] * size + torch.arange(size)).flatten()


def output_energy(reader: Tensor, moment: Tensor, size: int) -> Tensor:
    """Mean square of the contribution of each group of ``size`` adjacent columns to the output; shape ``(groups,)``."""
    return _energy(reader, _blocks(moment, size))


def surgery(reader: Tensor, moment: Tensor, size: int, kept: int) -> Tensor:
    """Indices of the groups that stay, ascending; groups whose loss the others can best make up for are removed first.

    Each round removes a few groups, refits the matrix to the rest and recomputes the cost of removing each of them.
    """
    import torch

    inverse, matrix = torch.cholesky_inverse(_factor(moment)[0]), reader
    left = torch.arange(reader.shape[1] // size)
    while len(left) > kept:
        cost = _energy(matrix, torch.linalg.inv(_blocks(inverse, size)))
        going = cost.argsort(stable=True)[: min(len(left) - kept, max(1, len(left) // SHARE))]
        staying = torch.ones(len(left), dtype=torch.bool).index_fill(0, going, value=False).nonzero().flatten()
        gone, stay = within(going, size), within(staying, size)
        passed_on = torch.linalg.solve(inverse[gone][:, gone], inverse[gone][:, stay])
        matrix = matrix[:, stay] - matrix[:, gone] @ passed_on
        inverse = inverse[stay][:, stay] - inverse[stay][:, gone] @ passed_on
        left = left[staying]
    return left


def reconstructed(reader: Tensor, moment: Tensor, stay: Tensor) -> Tensor:
    """Damped least-squares fit of the columns that stay to the outputs of the whole matrix.

    It is ``W H[:, S] H[S, S]^-1``, with H damped.
    """
    import torch

    factor, damped = _factor(moment, stay)
    return torch.cholesky_solve(damped[stay] @ reader.T, factor).T.contiguous()


def _energy(matrix: Tensor, blocks: Tensor) -> Tensor:
    """``trace(M B M')`` of each group of columns ``M`` and its block ``B``; shape ``(groups,)``."""
    columns = matrix.view(len(matrix), len(blocks), -1).transpose(0, 1)
    energy: Tensor = ((columns @ blocks) * columns).sum((1, 2))
    return energy


def _blocks(matrix: Tensor, size: int) -> Tensor:
    """Square blocks on the diagonal, shape ``(groups, size, size)``."""
    return matrix.view(len(matrix) // size, size, -1, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def _factor(moment: Tensor, stay: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cholesky factor of a damped second moment on some columns, and the whole damped second moment.

    Both are identities if all inputs are zero.

    Raises:
        EvaluationError: If no damping makes the matrix positive definite: it is not a second moment.
    """
    import torch

    mean = float(moment.diagonal().mean())
    for attempt in range(ATTEMPTS):
        damped = moment + (DAMPING * 10**attempt * mean if mean > 0 else 1.0) * torch.eye(len(moment))
        factor, failed = torch.linalg.cholesky_ex(damped if stay is None else damped[stay][:, stay])
        if not failed:
            return factor, damped
    raise no_moment()
