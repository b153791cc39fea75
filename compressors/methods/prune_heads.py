"""Structured pruning of attention: key-value heads are removed with the query heads that share them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from paredown.compressors.numerics.group_removal import Narrowing, rounded, strongest
from paredown.space.choice import Choice, Shape, methods
from paredown.space.site import Kind, Site
from paredown.space.statistics import Statistics
from paredown.space.structure_choice import Structure

if TYPE_CHECKING:
    from torch import Tensor


@methods.register("prune-heads")
class PruneHeads(Narrowing):
    """Removes the least important key-value heads, each with the group of query heads that shares it.

    A group's importance is the product of the norms of its values and of the columns that read it (``magnitude``), the
    mean square of its contribution to the output (``activation``), or the loss that remains once the other heads
    compensate (``reconstruct``). At least one group stays.
    """

    method: ClassVar[str] = "prune-heads"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"attention"})

    @classmethod
    def site_offers(cls, site: Site) -> Sequence[Choice]:
        """Default space: a quarter or half of the groups removed, the rest in 4 bits."""
        offers: list[Choice] = []
        for sparsity in (0.25, 0.5):
            choice = cls.build({"sparsity": sparsity, "algorithm": "reconstruct"})
            if choice.site_fault(site) is None:
                offers.append(cls.build({**choice.knobs, "then": rounded(choice.shapes(site), 4)}))
        return offers

    def kept(self, groups: int) -> int:
        """Number of groups kept."""
        return max(1, round(groups * (1 - self.sparsity)))

    def site_fault(self, site: Site) -> str | None:
        """Why a site cannot take it: its heads cannot be separated, or the sparsity removes none."""
        if site.heads is None:
            return "its model code has a fixed number of heads; keep them, or drop the whole attention"
        groups = site.heads[1]
        return (
            None
            if self.kept(groups) < groups
            else f"sparsity {self.sparsity} removes none of {groups} key-value heads; raise it"
        )

    def shapes(self, site: Site) -> Sequence[Shape]:
        """Shapes with fewer rows of queries, keys and values, and fewer columns in the matrix that reads them."""
        if site.heads is None:
            return super().shapes(site)
        *makers, reader = (member.shape for member in site.members)
        groups = site.heads[1]
        kept = self.kept(groups)
        return [
            *((rows // groups * kept, columns) for rows, columns in makers),
            (reader[0], reader[1] // groups * kept),
        ]

    def restructure(self, site: Site, original: Structure) -> Structure:
        """The site with only the kept groups, in their original order."""
        groups = site.heads[1] if site.heads else 1
        return self.narrowed(original, self.groups(original.matrices, original.statistics[-1], groups), groups)

    def groups(self, matrices: Sequence[Tensor], statistics: Statistics, groups: int) -> Tensor:
        """Indices of the groups that stay, ascending.

        Args:
            matrices: Queries, keys, values and, last, the matrix that reads them.
            statistics: Statistics of that last matrix.
            groups: Number of groups in the original.
        """
        _, _, values, reader = matrices
        if self.algorithm == "magnitude":
            read = reader.view(len(reader), groups, -1).transpose(0, 1).reshape(groups, -1)
            return strongest(values.view(groups, -1).norm(dim=1) * read.norm(dim=1), self.kept(groups))
        return self.stay(reader, statistics, reader.shape[1] // groups, self.kept(groups))
