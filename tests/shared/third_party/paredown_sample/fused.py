"""A runtime that fuses the query, key and value matrices, and has no kernel for compressed embeddings."""

from __future__ import annotations

from paredown.space.site import Site
from paredown.space.targets.target import Storage, Target


def fault(site: Site, storage: Storage) -> str | None:
    """Why it cannot load what is stored of a site: an embedding must be dense."""
    if site.kind == "embedding" and storage.form != "dense":
        return f"fused looks {site.name} up in a dense table; keep it or cast it"
    return None


FUSED = Target(
    name="fused",
    format="paredown",
    engine="eager",
    fault=fault,
    usage="import paredown\n\nmodel = paredown.load({folder!r})",
    ties=(("q_proj", "k_proj", "v_proj"),),
)
