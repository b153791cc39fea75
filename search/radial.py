"""A surrogate by radial basis functions: through every point that was measured."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

Floats = NDArray[np.float64]

MOST = 1000
"""Of more points the newest are used: the cost grows with the cube of their number."""


class Radial:
    """Cubic kernel with a linear tail; a linear kernel with a constant one where the points are too few, or too alike, for that.

    Args:
        points: ``(n, d)``; of equal ones the first counts.
        values: ``(n,)``.
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
        """Values expected at these points, ``(n,)``."""
        return np.asarray(self._model(points), dtype=np.float64)

    @staticmethod
    def _fitted(points: Floats, values: Floats, kernel: str, degree: int) -> RBFInterpolator:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            return RBFInterpolator(points, values, kernel=kernel, degree=degree)
