"""transformers: symmetric codes of untied linear layers, which it decompresses when it loads them."""

from __future__ import annotations

from paredown.space.site import Site
from paredown.space.targets.target import Storage, Target, targets


def fault(site: Site, storage: Storage) -> str | None:
    """Why ``from_pretrained`` cannot load what is stored of a site; None if it can."""
    if storage.form == "dense" or (storage.form == "removed" and site.kind == "block"):
        return None
    if storage.form == "removed":
        return f"transformers cannot run a block without its {site.kind}; drop the whole block or use target paredown"
    if storage.form == "own":
        return f"{storage.method} runs with target paredown only"
    if storage.levels:
        return (
            f"transformers cannot load {storage.levels} codes from packed files; "
            "use another algorithm or target paredown"
        )
    if storage.zero_points:
        return "transformers does not load packed zero points; use symmetric=true or target paredown"
    for member in site.members:
        if member.class_name != "Linear":
            return (
                f"transformers cannot load a quantized {member.class_name}; keep {member.module} or use target paredown"
            )
        if member.tied:
            return (
                f"transformers cannot load a quantized weight that is tied ({member.module}); "
                "keep it or use target paredown"
            )
    return None


targets.register("transformers")(
    Target(
        name="transformers",
        format="transformers",
        engine="transformers",
        fault=fault,
        usage="from transformers import {architecture}\n\nmodel = {architecture}.from_pretrained({folder!r})",
        decompresses=True,
    )
)
