"""Structured pruning of feed-forward networks: whole neurons go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from paredown.space.choice import Choice, Shape, Structure, methods
from paredown.space.site import Kind, Member, Site
from paredown.space.statistics import NO_STATISTICS, Statistics

if TYPE_CHECKING:
    from torch import Tensor

MULTIPLE = 32


@methods.register("prune-neurons")
class PruneNeurons(Choice):
    """The neurons whose weights are smallest are removed from every matrix of the network: it is narrower afterwards.

    A neuron's importance is the product of the norms of its rows and its column, which bounds what it adds to the output
    of a linear network. What is left is a multiple of 32 where the network is that wide.
    """

    method: ClassVar[str] = "prune-neurons"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"ffn"})

    sparsity: float = Field(gt=0, lt=1, description="share of the neurons that go")

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """A quarter of the neurons, the rest in 4 or 6 bits."""
        if kind != "ffn":
            return ()
        group = 32 if member.shape[0] % 32 == 0 and member.shape[1] % MULTIPLE == 0 else "channel"
        quantized = [{"method": "quantize", "bits": bits, "group_size": group} for bits in (4, 6)]
        return [cls.build({"sparsity": 0.25, "then": then}) for then in quantized]

    def kept(self, neurons: int) -> int:
        """Neurons that are left."""
        kept = round(neurons * (1 - self.sparsity))
        return max(kept // MULTIPLE * MULTIPLE, MULTIPLE) if neurons % MULTIPLE == 0 else max(1, kept)

    def site_fault(self, site: Site) -> str | None:
        """A sparsity that removes nothing."""
        neurons = site.members[-1].shape[1]
        return None if self.kept(neurons) < neurons else f"sparsity {self.sparsity} removes none of {neurons} neurons; raise it"

    def shapes(self, site: Site) -> Sequence[Shape]:
        """Fewer rows where neurons are made, fewer columns where they are read."""
        *makers, reader = site.members
        kept = self.kept(reader.shape[1])
        return [*((kept, maker.shape[1]) for maker in makers), (reader.shape[0], kept)]

    def restructure(
        self,
        site: Site,
        matrices: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        statistics: Sequence[Statistics],
        rest: Mapping[str, Tensor],
    ) -> Structure:
        """The neurons that stay, in their order."""
        stay = self.neurons(matrices)
        *makers, reader = matrices
        return Structure(
            matrices=[*(maker[stay] for maker in makers), reader[:, stay]],
            biases=[*(bias if bias is None else bias[stay] for bias in biases[:-1]), biases[-1]],
            statistics=[*statistics[:-1], NO_STATISTICS],
        )

    def neurons(self, matrices: Sequence[Tensor]) -> Tensor:
        """Indices of the neurons that stay, ascending, from the matrices that make them and, last, the one that reads them."""
        *makers, reader = matrices
        importance: Tensor = reader.norm(dim=0)
        for matrix in makers:
            importance = importance * matrix.norm(dim=1)
        return importance.topk(self.kept(reader.shape[1])).indices.sort().values
