"""Removal of a block, or of its attention or feed-forward network alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from paredown.space.choice import Choice, Shape, methods
from paredown.space.site import Kind, Site
from paredown.space.structure_choice import StructureChoice
from paredown.space.targets.target import Storage


@methods.register("drop")
class Drop(StructureChoice):
    """Removes the block, or its attention or feed-forward network alone; the residual stream bypasses it."""

    method: ClassVar[str] = "drop"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"block", "attention", "ffn"})

    @classmethod
    def site_offers(cls, site: Site) -> Sequence[Choice]:
        """Default space: always offered."""
        return (cls(),)

    @property
    def storage(self) -> Storage:
        """Nothing."""
        return Storage(method=self.method, form="removed")

    def shapes(self, site: Site) -> Sequence[Shape]:
        """Empty: no matrix remains."""
        return ()
