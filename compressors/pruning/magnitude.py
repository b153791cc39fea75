"""The smallest weights go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.pruning.pattern import Criterion, Pattern, Pruned, criteria
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor


def magnitude(weight: Tensor, pattern: Pattern, statistics: Statistics) -> Pruned:
    """The largest magnitudes of each group stay as they are."""
    return Pruned(mask=pattern.mask(weight.abs()), weight=weight)


criteria.register("magnitude")(Criterion(prune=magnitude))
