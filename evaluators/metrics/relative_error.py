"""Squared error of an encoder's final hidden states, relative to their squared norm."""

from __future__ import annotations

from paredown.evaluators.metrics import Metric, metrics

metrics.register("relative-error")(
    Metric(
        title="relative error of the final hidden states",
        distance=lambda original, compressed: (compressed - original).square().sum(-1),
        size=lambda original: original.square().sum(-1),
        share_of="squared norm of the final hidden states",
        encoders=True,
    )
)
