"""A block, or its attention or feed-forward network, left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from paredown.space.choice import Choice, Shape, methods
from paredown.space.site import Kind, Site
from paredown.space.target import Target


@methods.register("drop")
class Drop(Choice):
    """The block, or its attention or feed-forward network alone, is left out: what comes in goes on as it is."""

    method: ClassVar[str] = "drop"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"block", "attention", "ffn"})

    @classmethod
    def site_offers(cls, site: Site) -> Sequence[Choice]:
        """Always there."""
        return (cls(),)

    def supports(self, site: Site, target: Target) -> str | None:
        """Every target runs a model with fewer blocks; paredown's own a block without one of its halves."""
        if site.kind == "block" or target.name == "paredown":
            return None
        return f"{target.name} runs no block without its {site.kind}; drop the whole block or use target paredown"

    def shapes(self, site: Site) -> Sequence[Shape]:
        """Nothing is left."""
        return ()
