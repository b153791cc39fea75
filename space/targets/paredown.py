"""paredown's own loader: every choice at every site, with its integer kernels for bfloat16 activations."""

from __future__ import annotations

from paredown.space.targets.target import Target, targets

PAREDOWN = targets.register("paredown")(
    Target(
        name="paredown",
        format="paredown",
        engine="paredown",
        fault=lambda site, storage: None,
        usage="import paredown\n\nmodel = paredown.load({folder!r})",
        dtype="bfloat16",
    )
)
