"""A block left out."""

from __future__ import annotations

from typing import ClassVar

from paredown.space.choice import Choice, methods
from paredown.space.site import Kind, Site
from paredown.space.target import Target


@methods.register("drop")
class Drop(Choice):
    """The whole block is left out: its input is its output. The file holds nothing of it."""

    method: ClassVar[str] = "drop"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"block"})

    def supports(self, site: Site, target: Target) -> str | None:
        """Every target runs a model with fewer blocks."""
        return None
