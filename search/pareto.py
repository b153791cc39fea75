"""Dominance among points whose objectives are all minimised."""

from __future__ import annotations

from collections.abc import Sequence


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether ``a`` is nowhere worse than ``b`` and somewhere better; never where a NaN is involved."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other dominates, in order; of equal points the first; none with a NaN."""
    whole = [i for i, point in enumerate(points) if all(value == value for value in point)]
    order = sorted(whole, key=lambda i: (tuple(points[i]), i))
    front: list[int] = []
    for i in order:  # whoever dominates a point comes before it
        if not any(dominates(points[j], points[i]) or tuple(points[j]) == tuple(points[i]) for j in front):
            front.append(i)
    return sorted(front)
