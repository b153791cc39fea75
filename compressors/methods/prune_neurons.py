"""Structured pruning of feed-forward networks: whole neurons are removed."""

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

MULTIPLE = 32
"""The number of neurons kept is a multiple of this, if the original number is."""


@methods.register("prune-neurons")
class PruneNeurons(Narrowing):
    """Removes the least important neurons from every matrix of the network, which becomes narrower.

    A neuron's importance is the product of the norms of its rows and its column (``magnitude``), which bounds its
    contribution to the output of a linear network; the norm of its column times the neuron's root mean square
    (``activation``); or the loss that remains once the other neurons compensate (``reconstruct``). The number kept is a
    multiple of 32 if the original number is.
    """

    method: ClassVar[str] = "prune-neurons"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"ffn"})

    @classmethod
    def site_offers(cls, site: Site) -> Sequence[Choice]:
        """Default space: a quarter of the neurons removed, the rest in 4 or 6 bits."""
        choice = cls.build({"sparsity": 0.25, "algorithm": "reconstruct"})
        return [cls.build({**choice.knobs, "then": rounded(choice.shapes(site), bits)}) for bits in (4, 6)]

    def kept(self, neurons: int) -> int:
        """Number of neurons kept."""
        kept = round(neurons * (1 - self.sparsity))
        return max(kept // MULTIPLE * MULTIPLE, MULTIPLE) if neurons % MULTIPLE == 0 else max(1, kept)

    def site_fault(self, site: Site) -> str | None:
        """Why a site cannot take it: the sparsity removes no neuron."""
        neurons = site.members[-1].shape[1]
        return (
            None
            if self.kept(neurons) < neurons
            else f"sparsity {self.sparsity} removes none of {neurons} neurons; raise it"
        )

    def shapes(self, site: Site) -> Sequence[Shape]:
        """Shapes with fewer rows in the matrices that make neurons, and fewer columns in the one that reads them."""
        *makers, reader = site.members
        kept = self.kept(reader.shape[1])
        return [*((kept, maker.shape[1]) for maker in makers), (reader.shape[0], kept)]

    def restructure(self, site: Site, original: Structure) -> Structure:
        """The site with only the kept neurons, in their original order."""
        return self.narrowed(
            original, self.neurons(original.matrices, original.statistics[-1]), original.matrices[-1].shape[1]
        )

    def neurons(self, matrices: Sequence[Tensor], statistics: Statistics) -> Tensor:
        """Indices of the neurons that stay, ascending.

        Args:
            matrices: Those that make the neurons and, last, the one that reads them.
            statistics: Statistics of that last matrix.
        """
        *makers, reader = matrices
        kept = self.kept(reader.shape[1])
        if self.algorithm == "magnitude":
            importance: Tensor = reader.norm(dim=0)
            for matrix in makers:
                importance = importance * matrix.norm(dim=1)
            return strongest(importance, kept)
        return self.stay(reader, statistics, 1, kept)
