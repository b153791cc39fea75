"""Choices that change the matrices of an attention, a feed-forward network or a block together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paredown.space.choice import Choice, Shape
from paredown.space.errors import PlanError
from paredown.space.site import Site
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Structure:
    """The matrices of a feed-forward network or an attention, before or after its structure is changed.

    Attributes:
        matrices: One per member, in the members' order; ``(out_features, in_features)``, float32.
        biases: One per member; None for a member without a bias.
        statistics: One per member.
        rest: Other tensors by name. Before the change: the tensors of `Site.norm`. After it: those that absorbed a
            scale.
    """

    matrices: Sequence[Tensor]
    biases: Sequence[Tensor | None]
    statistics: Sequence[Statistics]
    rest: Mapping[str, Tensor] = field(default_factory=dict)


class StructureChoice(Choice):
    """A method that changes the matrices of a site together, or removes the site; ``then`` compresses what is left.

    Byte counts are derived from the shapes that remain.
    """

    def shapes(self, site: Site) -> Sequence[Shape]:
        """Shapes of the matrices that remain of a site's members, in order; empty if the site is removed. Pure."""
        return [member.shape for member in site.members]

    def site_fault(self, site: Site) -> str | None:
        """Why an ``ffn`` or ``attention`` site cannot take the choice, with the remedy; None if it can."""
        return None

    def restructure(self, site: Site, original: Structure) -> Structure:
        """An ``ffn`` or ``attention`` site after its structure is changed, before ``then`` compresses it.

        Args:
            site: The site.
            original: Matrices of the site's members: first those that make the neurons or heads, last the one that
                reads them. ``rest`` holds the norm, whose scale the result may change. Not modified.
        """
        raise PlanError(f"{self.method} does not change the structure of a site")
