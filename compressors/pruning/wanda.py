"""Wanda: each weight is scored alone, by its magnitude times the size of its input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.compressors.pruning.pattern import Criterion, Pattern, Pruned, criteria
from paredown.space.statistics import Statistics

if TYPE_CHECKING:
    from torch import Tensor


def wanda(weight: Tensor, pattern: Pattern, statistics: Statistics) -> Pruned:
    """Keeps the weights of largest magnitude times root mean square of the input, unchanged.

    Source:
        Sun et al., 2023, "A Simple and Effective Pruning Approach for Large Language Models", arXiv 2306.11695, section
        3. The paper takes the norm of the input, which is its root mean square times a constant.
    """
    size = statistics["second_moment"].diagonal().clamp(min=0).sqrt()
    return Pruned(mask=pattern.mask(weight.abs() * size), weight=weight)


criteria.register("wanda")(Criterion(prune=wanda, needs=frozenset({"second_moment"})))
