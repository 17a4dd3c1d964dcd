"""Orientations that a molecule's symmetry makes alike, for measuring how well orientations were found.

No file says where the axis of a molecule lies, so it is found on the density: one of the main axes of its mass.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tomotwin_core.structures.density import Density


def cyclic_turns(density: Density, fold: int) -> NDArray[np.float64]:
    """The turns (fold, 3, 3) about the axis that best map a molecule of C symmetry onto itself, none first.

    For an orientation R all of R @ turn are alike.
    """
    values = density.values.astype(np.float64)
    places = np.argwhere(values > 0.2 * values.max())
    weights = values[tuple(places.T)]
    middle = (np.array(values.shape) - 1) / 2
    xyz = (places - middle)[:, ::-1]
    _, axes = np.linalg.eigh((xyz * weights[:, None]).T @ xyz)

    def alike(turn: NDArray[np.float64]) -> float:
        there = (xyz @ turn.T)[:, ::-1].T + middle[:, None]
        return float(np.corrcoef(ndimage.map_coordinates(values, there, order=1), weights)[0, 1])

    turns = [Rotation.from_rotvec(axes[:, i] * 2 * np.pi / fold).as_matrix() for i in range(3)]
    best = max(turns, key=alike)
    return np.stack([np.linalg.matrix_power(best, k) for k in range(fold)])
