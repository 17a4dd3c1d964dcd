"""Resolution of an average: the Fourier shell correlation with the true density, or of two halves of the data.

    fsc = shell_correlation(average, truth, 6.0, diameter_A=200)
    fsc.resolution_A(0.5)      against the truth; 0.143 for two independent halves (Rosenthal and Henderson 2003)

A half-set correlation of 0.143 and a correlation of 0.5 with a perfect map are the same signal-to-noise ratio of the whole
average. Outside a soft sphere about the particle both volumes are set to 0, since there the truth is empty and the average
is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomotwin_core.structures.density import Density, low_passed

# The soft sphere reaches this far beyond the particle's radius, and falls to 0 over as much again.
_ROOM_A = 15.0


@dataclass(frozen=True)
class ShellCorrelation:
    """frequency_per_A, correlation : (shells,), from the first shell on, up to Nyquist."""

    frequency_per_A: NDArray[np.float64]
    correlation: NDArray[np.float64]

    def resolution_A(self, threshold: float) -> float:
        """Where the curve first falls below a threshold, between shells by a straight line; the finest frequency where it
        never does, infinity where it begins below."""
        below = np.flatnonzero(self.correlation < threshold)
        if len(below) == 0:
            return float(1 / self.frequency_per_A[-1])
        i = int(below[0])
        if i == 0:
            return float("inf")
        high, low = self.correlation[i - 1], self.correlation[i]
        share = (high - threshold) / (high - low)
        frequency = self.frequency_per_A[i - 1] + share * (self.frequency_per_A[i] - self.frequency_per_A[i - 1])
        return float(1 / frequency)


def shell_correlation(
    first: NDArray[np.floating], second: NDArray[np.floating], voxel_size_A: float, diameter_A: float | None = None
) -> ShellCorrelation:
    """Fourier shell correlation of two cubes [z, y, x] of one size (Harauz and van Heel, Optik 73, 146, 1986).

    diameter_A : of the particle in the middle (n // 2) of both, for the soft sphere; None compares the whole boxes.
    """
    if first.shape != second.shape or len(set(first.shape)) != 1:
        raise ValueError(f"two cubes of one size are compared, not {first.shape} and {second.shape}")
    n = first.shape[0]
    if diameter_A is not None:
        mask = _soft_sphere(n, (diameter_A / 2 + _ROOM_A) / voxel_size_A, _ROOM_A / voxel_size_A)
        first, second = first * mask, second * mask
    a, b = np.fft.rfftn(first), np.fft.rfftn(second)
    full, half = np.fft.fftfreq(n) * n, np.fft.rfftfreq(n) * n
    shell = np.round(np.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + half**2)).astype(int).ravel()
    # The half of the transform that is left out is the mirror image of all columns but the first and the last.
    twice = np.broadcast_to(np.where((half == 0) | (half == n / 2), 1.0, 2.0), a.shape).ravel()

    def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(shell, values.ravel() * twice)[1 : n // 2 + 1], np.float64)

    cross = sums((a * b.conj()).real)
    power = np.sqrt(sums((a * a.conj()).real) * sums((b * b.conj()).real))
    return ShellCorrelation(np.arange(1, n // 2 + 1) / (n * voxel_size_A), cross / np.maximum(power, 1e-30))


def density_in_box(density: Density, box_vox: int, voxel_size_A: float) -> NDArray[np.float32]:
    """The true density on the grid of an average: [z, y, x], its middle at box_vox // 2."""
    middle = (np.array(density.values.shape) - 1) / 2
    axis = (np.arange(box_vox) - box_vox // 2) * voxel_size_A / density.voxel_size_A
    grid = np.stack(np.meshgrid(*(axis + m for m in middle), indexing="ij"))
    return np.asarray(ndimage.map_coordinates(low_passed(density, voxel_size_A), grid, order=3), np.float32)


def _soft_sphere(n: int, radius: float, edge: float) -> NDArray[np.float64]:
    axis = np.arange(n) - n // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    beyond = np.clip((np.sqrt(z * z + y * y + x * x) - radius) / max(edge, 1e-6), 0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * beyond))
