"""Radial basis function surrogate: interpolates every measured point."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

Floats = NDArray[np.float64]

MOST = 1000
"""Most points that are fitted, the newest; the cost grows with the cube of their number."""


class Radial:
    """Cubic RBF with a linear tail; a linear RBF with a constant tail where the points are too few or degenerate.

    Args:
        points: Shape ``(n, d)``; the first of equal points counts.
        values: Shape ``(n,)``.
    """

    def __init__(self, points: Floats, values: Floats) -> None:
        points, values = points[-MOST:], values[-MOST:]
        _, places = np.unique(points, axis=0, return_index=True)
        points, values = points[np.sort(places)], values[np.sort(places)]
        try:
            self._model = self._fitted(points, values, "cubic", 1)
        except (np.linalg.LinAlgError, ValueError):
            self._model = self._fitted(points, values, "linear", 0)

    def predict(self, points: Floats) -> Floats:
        """Interpolated values at these points, shape ``(n,)``."""
        return np.asarray(self._model(points), dtype=np.float64)

    @staticmethod
    def _fitted(points: Floats, values: Floats, kernel: str, degree: int) -> RBFInterpolator:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            return RBFInterpolator(points, values, kernel=kernel, degree=degree)
