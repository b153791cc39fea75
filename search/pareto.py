"""Pareto dominance and hypervolume; all objectives are minimised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether ``a`` is nowhere worse than ``b`` and somewhere better; False if either has a NaN."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the non-dominated points, ascending; the first of equal points, no point with a NaN."""
    whole = [i for i, point in enumerate(points) if all(value == value for value in point)]
    order = sorted(whole, key=lambda i: (tuple(points[i]), i))
    front: list[int] = []
    for i in order:  # a dominating point sorts before the points that it dominates
        if not any(dominates(points[j], points[i]) or tuple(points[j]) == tuple(points[i]) for j in front):
            front.append(i)
    return sorted(front)


def lower_left(points: Sequence[tuple[float, float]]) -> list[int]:
    """`pareto_front` of two objectives, ascending in the first, in O(n log n)."""
    values = np.array(points, dtype=np.float64).reshape(-1, 2)
    whole = np.flatnonzero(~np.isnan(values).any(axis=1))
    order = whole[np.lexsort((values[whole, 1], values[whole, 0]))]  # stable: keeps the first of equal points
    second = values[order, 1]
    lower = second < np.minimum.accumulate(np.concatenate([[np.inf], second]))[:-1]
    lower[:1] = True
    front: list[int] = order[lower].tolist()
    return front


def hypervolume(points: Sequence[Sequence[float]], reference_point: Sequence[float]) -> float:
    """Area that the points dominate below the reference point; two objectives, both minimised.

    Source:
        Zitzler & Thiele, 1998, "Multiobjective Optimization Using Evolutionary Algorithms - A Comparative Case Study".
    """
    stairs = _stairs(points, reference_point)
    return float(((reference_point[0] - stairs[:, 0]) * -np.diff(stairs[:, 1], prepend=reference_point[1])).sum())


def improvements(
    candidates: NDArray[np.float64], points: Sequence[Sequence[float]], reference_point: Sequence[float]
) -> NDArray[np.float64]:
    """Hypervolume that each candidate alone would add to the points.

    Args:
        candidates: Shape ``(n, 2)``.
        points: Two objectives, both minimised.
        reference_point: Upper corner of the hypervolume.

    Returns:
        Shape ``(n,)``, never negative.
    """
    stairs = _stairs(points, reference_point)
    left = np.concatenate([[-np.inf], stairs[:, 0]])  # steps of the front: `height` holds from `left` to `right`
    right = np.concatenate([stairs[:, 0], [reference_point[0]]])
    height = np.concatenate([[reference_point[1]], stairs[:, 1]])
    width = np.maximum(right - np.maximum(left, candidates[:, :1]), 0)
    added: NDArray[np.float64] = (width * np.maximum(height - candidates[:, 1:], 0)).sum(1)
    return added


def _stairs(points: Sequence[Sequence[float]], reference_point: Sequence[float]) -> NDArray[np.float64]:
    """The front below the reference point, ascending in the first objective; shape ``(n, 2)``."""
    inside = [
        (point[0], point[1])
        for point in points
        if all(x < limit for x, limit in zip(point, reference_point, strict=True))
    ]
    return np.array([inside[i] for i in lower_left(inside)], dtype=np.float64).reshape(-1, 2)
