"""Magnitude pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.pruning.pattern import Criterion, Pattern, Pruned, criteria
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor


def magnitude(weight: Tensor, pattern: Pattern, statistics: Statistics) -> Pruned:
    """Keeps the largest magnitudes of each group, unchanged.

    Source:
        Han et al., 2015, "Learning both Weights and Connections for Efficient Neural Networks", arXiv 1506.02626,
        without the retraining.
    """
    return Pruned(mask=pattern.mask(weight.abs()), weight=weight)


criteria.register("magnitude")(Criterion(prune=magnitude))
