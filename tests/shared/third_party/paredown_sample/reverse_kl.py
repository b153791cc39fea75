"""KL divergence with the roles of the two models exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.evaluators.metrics import Metric

if TYPE_CHECKING:
    from torch import Tensor


def divergence(original: Tensor, compressed: Tensor) -> Tensor:
    """KL divergence of the first log-probabilities from the second [nats]."""
    return (compressed.exp() * (compressed - original)).sum(-1).clamp(min=0)


REVERSE_KL = Metric(title="reverse KL divergence", distance=divergence, unit="nats/token")
