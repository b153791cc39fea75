"""The weights go that add least to the output, each on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.pruning.pattern import Criterion, Pattern, Pruned, criteria
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor


def wanda(weight: Tensor, pattern: Pattern, statistics: Statistics) -> Pruned:
    """The largest products of a weight's magnitude and its input's root mean square stay as they are.

    Source:
        Sun et al., 2023, "A Simple and Effective Pruning Approach for Large Language Models", arXiv 2306.11695, section 3;
        the norm of an input there is its root mean square here, times a constant.
    """
    size = statistics["second_moment"].diagonal().clamp(min=0).sqrt()
    return Pruned(mask=pattern.mask(weight.abs() * size), weight=weight)


criteria.register("wanda")(Criterion(prune=wanda, needs=frozenset({"second_moment"})))
