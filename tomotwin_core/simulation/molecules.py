"""Molecules at a voxel size, turned as asked: what a sample is filled with."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tomotwin_core.structures.density import Density, low_passed

# A body is what lies above this share of the maximum; below the other is the empty margin of a box.
BODY = 0.2
_CONTENT = 0.004


@dataclass(frozen=True)
class RotatedCopy:
    """A molecule turned and shifted by a part of a voxel: values and body mask [z, y, x] about the box's middle voxel
    plus `offset_vox` (x, y, z)."""

    values: NDArray[np.float32]
    body: NDArray[np.bool_]
    rotation: NDArray[np.float64]
    offset_vox: NDArray[np.float64]

    def probes(self, count: int) -> NDArray[np.intp]:
        """About `count` voxels (n, 3) of the body, evenly through it."""
        flat = np.flatnonzero(self.body)
        return np.stack(np.unravel_index(flat[:: max(len(flat) // count, 1)], self.body.shape), axis=1)

    def inner_radius_vox(self) -> float:
        """Radius of the largest ball about the middle that lies in the body; 0 for a hollow one."""
        middle = tuple(np.array(self.body.shape) // 2 + 1)
        return float(max(ndimage.distance_transform_edt(np.pad(self.body, 1))[middle] - 1, 0.0))


class Molecules:
    """Densities prepared for one voxel size, handed out in random orientations.

    `variants` > 0 keeps that many turned copies of each molecule and hands them out again turned by the 24 rotations of the cube (exact on the grid):
    the training stream's way, thousands of orientations at the price of a few. Which they are is told by `seed`, `series` and the
    molecule's name, not by what was handed out before.  0 interpolates every copy afresh.
    """

    def __init__(self, densities: Mapping[str, Density], voxel_size_A: float, variants: int = 0, seed: int = 0) -> None:
        self.voxel_size_A, self.seed = voxel_size_A, seed
        self.series = 0
        self.densities: dict[str, Density] = {}
        self._smooth: dict[str, NDArray[np.float32]] = {}
        self._reach: dict[str, float] = {}
        self._variants = variants
        self._kept: dict[tuple[str, int], dict[int, RotatedCopy]] = {}
        for name, density in densities.items():
            self.add(name, density)

    def add(self, name: str, density: Density) -> None:
        """Take one more molecule in."""
        self.densities[name] = density
        self._smooth[name] = low_passed(density, self.voxel_size_A)
        self._reach[name] = _reach(self._smooth[name])

    def forget(self, name: str) -> None:
        """Leave a molecule out again, with its kept copies."""
        for table in (self.densities, self._smooth, self._reach):
            del table[name]
        for key in [key for key in self._kept if key[0] == name]:
            del self._kept[key]

    def copy(self, name: str, rng: np.random.Generator) -> RotatedCopy:
        """One copy of a molecule in a random orientation (uniform on SO(3)) and sub-voxel position."""
        if not self._variants:
            return self._turned_at_random(name, rng)
        kept, number = self._kept.setdefault((name, self.series), {}), int(rng.integers(self._variants))
        if number not in kept:
            own = np.random.default_rng((self.seed, self.series, zlib.crc32(name.encode()), number))
            kept[number] = self._turned_at_random(name, own)
        return _turn_by_cube(kept[number], rng)

    def _turned_at_random(self, name: str, rng: np.random.Generator) -> RotatedCopy:
        return self.turned(name, Rotation.random(random_state=rng).as_matrix(), rng.uniform(-0.5, 0.5, 3))

    def turned(self, name: str, rotation: NDArray[np.float64], offset_vox: NDArray[np.float64]) -> RotatedCopy:
        """One copy in a given orientation (x_sample = R x_reference), its centre `offset_vox` (x, y, z) off the middle
        voxel."""
        density, smooth = self.densities[name], self._smooth[name]
        scale = self.voxel_size_A / density.voxel_size_A
        # The corners of the reference's box turn outwards: what counts is how far the molecule reaches in any direction.
        half = int(np.ceil(self._reach[name] / scale)) + 1
        axis = np.arange(-half, half + 1)
        z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
        points = np.stack([x, y, z]).reshape(3, -1) - offset_vox[:, None]
        # The reference is read at R^T x_sample.
        reference = (rotation.T @ points)[::-1] * scale + (np.array(smooth.shape)[:, None] - 1) / 2
        values = (
            ndimage.map_coordinates(smooth, reference, order=1, mode="constant").reshape(z.shape).astype(np.float32)
        )
        values *= density.mass_kDa * 1000.0 / max(float(values.sum()), 1e-6)
        return _trimmed(RotatedCopy(values, values > BODY * values.max(), rotation, offset_vox))


def _turn_by_cube(copy: RotatedCopy, rng: np.random.Generator) -> RotatedCopy:
    order = rng.permutation(3)
    signs = rng.choice([-1, 1], 3)
    # As a matrix on (x, y, z): new axis i is the old axis order[i], times its sign. A mirror is made a rotation by
    # one more sign.
    matrix = np.zeros((3, 3))
    matrix[np.arange(3), order] = signs
    if np.linalg.det(matrix) < 0:
        signs[0] *= -1
        matrix[0] *= -1
    axes_zyx = tuple(2 - order[::-1])

    def turned(array: NDArray) -> NDArray:
        return np.flip(array.transpose(axes_zyx), [i for i in range(3) if signs[2 - i] < 0])

    return RotatedCopy(turned(copy.values), turned(copy.body), matrix @ copy.rotation, matrix @ copy.offset_vox)


def _reach(values: NDArray[np.float32]) -> float:
    """Distance of the farthest voxel with content from the box's middle, in voxels."""
    content = np.argwhere(values > _CONTENT * values.max()) - (np.array(values.shape) - 1) / 2
    return float(np.linalg.norm(content, axis=1).max())


def _trimmed(copy: RotatedCopy) -> RotatedCopy:
    content = np.argwhere(copy.values > _CONTENT * copy.values.max())
    middle = copy.values.shape[0] // 2
    half = int(np.abs(content - middle).max())
    cut = (slice(max(middle - half, 0), middle + half + 1),) * 3
    return RotatedCopy(
        np.ascontiguousarray(copy.values[cut]), np.ascontiguousarray(copy.body[cut]), copy.rotation, copy.offset_vox
    )
