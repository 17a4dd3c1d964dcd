"""Where a peak lies between the points at which it was sampled."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def vertex(before: ArrayLike, middle: ArrayLike, after: ArrayLike, farthest: float = 1.0) -> NDArray[np.float64]:
    """Where the parabolas through values at -1, 0 and 1 (of one shape) have their maximum, within -farthest to farthest; 0 where they
    have none."""
    low, here, high = (np.asarray(values, float) for values in (before, middle, after))
    curvature = low - 2 * here + high
    place = np.divide(0.5 * (low - high), curvature, out=np.zeros_like(curvature), where=curvature < 0)
    return np.asarray(np.clip(place, -farthest, farthest))
