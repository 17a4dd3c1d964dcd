"""From one voxel size to another, anti-aliased, whole or slab by slab.

Both grids have their voxel 0 at the same place, and voxel i at i * voxel size: index_out * size_out = index_in * size_in.
Along each axis every output voxel is a weighted sum of nearby input voxels with Lanczos weights of three lobes
(Duchon, J. Appl. Meteorol. 18, 1016, 1979). Going to coarser voxels, the kernel is widened by the ratio, so that what
lies beyond the new Nyquist frequency is taken out rather than folded back; going to finer ones it interpolates.

The weights form a band matrix per axis. It is applied in blocks of 64 outputs, each a small dense matrix product: BLAS does
that an order of magnitude faster than sparse products or `scipy.ndimage.zoom`, and one block along z needs only its
planes and a few around, which is what bounds the memory.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tomotwin_core.tomogram.source import Voxels

MODEL_VOXEL_SIZE_A = 10.0

_LOBES = 3
_BLOCK = 64


def resampled_shape(shape: tuple[int, int, int], size_in_A: float, size_out_A: float) -> tuple[int, int, int]:
    """The (z, y, x) shape of a volume at another voxel size: the last voxel lies on or before the last one there was."""
    z, y, x = (math.floor((n - 1) * size_in_A / size_out_A + 1e-6) + 1 for n in shape)
    return z, y, x


def resample(volume: NDArray[np.float32], size_in_A: float, size_out_A: float) -> NDArray[np.float32]:
    """A volume [z, y, x] at another voxel size (A), float32; see the module for frame and method."""
    data = np.asarray(volume, dtype=np.float32)
    z, y, x = data.shape
    for axis, (n_in, n_out) in enumerate(
        zip((z, y, x), resampled_shape((z, y, x), size_in_A, size_out_A), strict=True)
    ):
        data = _apply(_band_blocks(n_in, n_out, size_in_A, size_out_A), data, axis)
    return data


@dataclass(frozen=True)
class Resampled:
    """A tomogram at another voxel size; `slab` computes the planes asked for and reads only what they need.

    Attributes
    ----------
    source : Voxels
        Where the planes come from.
    voxel_size_A : float
        The voxel size it is brought to.
    """

    source: Voxels
    voxel_size_A: float = MODEL_VOXEL_SIZE_A

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) at the new voxel size."""
        return resampled_shape(self.source.shape, self.source.voxel_size_A, self.voxel_size_A)

    def slab(self, z0: int, z1: int) -> NDArray[np.float32]:
        """Planes z0 up to z1 as float32 [z, y, x]."""
        z1 = min(z1, self.shape[0])
        parts = []
        for start in range(z0, z1, _BLOCK):
            band = _band(self._n_in(0), self._sizes, start, min(start + _BLOCK, z1))
            parts.append(band.along(self._in_plane(self.source.slab(band.first, band.last)), 0))
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    @property
    def _sizes(self) -> tuple[float, float]:
        return self.source.voxel_size_A, self.voxel_size_A

    def _n_in(self, axis: int) -> int:
        return self.source.shape[axis]

    @cached_property
    def _plane_blocks(self) -> tuple[list["_Band"], list["_Band"]]:
        y, x = (_band_blocks(self._n_in(axis), self.shape[axis], *self._sizes) for axis in (1, 2))
        return y, x

    def _in_plane(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._sizes[0] == self._sizes[1]:
            return planes
        return _apply(self._plane_blocks[0], _apply(self._plane_blocks[1], planes, 2), 1)


def at_detail(volume: NDArray[np.float32], voxel_size_A: float) -> NDArray[np.float32]:
    """A volume [z, y, x] of model voxels with the detail that a tomogram of `voxel_size_A` has left."""
    if voxel_size_A <= MODEL_VOXEL_SIZE_A:
        return volume
    return resample(resample(volume, MODEL_VOXEL_SIZE_A, voxel_size_A), voxel_size_A, MODEL_VOXEL_SIZE_A)


def resampled_slabs(
    source: Voxels, voxel_size_A: float = MODEL_VOXEL_SIZE_A, planes: int = _BLOCK
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The resampled tomogram from bottom to top: (first plane, slab of up to `planes` planes) in new voxels."""
    resampled = Resampled(source, voxel_size_A)
    for z0 in range(0, resampled.shape[0], planes):
        yield z0, resampled.slab(z0, z0 + planes)


@dataclass(frozen=True)
class _Band:
    """Weights (outputs, inputs) that make outputs start..stop of an axis from its inputs first..last."""

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.float32]

    def along(self, data: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Apply to data whose `axis` holds exactly the inputs first..last."""
        z, y, x = data.shape
        if axis == 0:
            return (self.weights @ data.reshape(z, y * x)).reshape(-1, y, x)
        if axis == 1:
            stacked: NDArray[np.float32] = np.matmul(self.weights, data)
            return stacked
        return (data.reshape(z * y, x) @ self.weights.T).reshape(z, y, -1)


def _apply(blocks: list[_Band], data: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    shape = list(data.shape)
    shape[axis] = blocks[-1].stop
    out = np.empty(shape, np.float32)
    for block in blocks:
        where: list[slice] = [slice(None)] * 3
        inputs = list(where)
        where[axis], inputs[axis] = slice(block.start, block.stop), slice(block.first, block.last)
        piece = data[tuple(inputs)]
        out[tuple(where)] = block.along(np.ascontiguousarray(piece) if axis == 2 else piece, axis)
    return out


def _band_blocks(n_in: int, n_out: int, size_in_A: float, size_out_A: float) -> list[_Band]:
    return [
        _band(n_in, (size_in_A, size_out_A), start, min(start + _BLOCK, n_out)) for start in range(0, n_out, _BLOCK)
    ]


def _band(n_in: int, sizes_A: tuple[float, float], start: int, stop: int) -> _Band:
    ratio = sizes_A[1] / sizes_A[0]
    if ratio == 1:
        return _Band(start, stop, start, stop, np.eye(stop - start, dtype=np.float32))
    width = max(ratio, 1.0)
    reach = math.ceil(_LOBES * width)
    centres = np.arange(start, stop) * ratio
    near = np.floor(centres).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
    distance = (near - centres[:, None]) / width
    weights = np.where(np.abs(distance) < _LOBES, np.sinc(distance) * np.sinc(distance / _LOBES), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)  # a constant stays that constant
    inside = _mirrored(near, n_in)
    first, last = int(inside.min()), int(inside.max()) + 1
    matrix = np.zeros((stop - start, last - first))
    np.add.at(matrix, (np.arange(stop - start)[:, None], inside - first), weights)
    return _Band(start, stop, first, last, matrix.astype(np.float32))


def _mirrored(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Indices beyond the ends, mirrored about the first and last voxel's centre."""
    if n == 1:
        return np.zeros_like(index)
    folded = np.mod(index, 2 * (n - 1))
    return np.minimum(folded, 2 * (n - 1) - folded)
