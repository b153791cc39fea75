"""KL divergence of the next-token distribution from the original's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.evaluators.metrics import Metric, metrics

if TYPE_CHECKING:
    from torch import Tensor


def divergence(original: Tensor, compressed: Tensor) -> Tensor:
    """KL divergence of the second log-probabilities from the first [nats]; rounding never makes it negative."""
    return (original.exp() * (original - compressed)).sum(-1).clamp(min=0)


metrics.register("kl")(Metric(title="KL divergence to the original", distance=divergence, unit="nats/token"))
