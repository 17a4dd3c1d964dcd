"""Parts of a tomogram that are no specimen: padding, the corners that a rotation leaves, what was erased.

They hold one value each, exactly or to rounding. Counted as specimen they are a step of many deviations at their rim, within
a window of which molecules lose their contrast. Here they are found plane by plane, as squares of one value or as rows and
columns of one value along a face, and filled with the specimen's mean; statistics leave them out.

What is merely clipped, such as gold in bytes, is of one value too: where that is the least or the largest there is, only
what reaches a face or is far wider than gold counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, maximum_filter1d, minimum_filter1d

from tomotwin_core.remarks import remark
from tomotwin_core.tomogram.source import Voxels

# Sides of the squares that count (A), and of those whose value is the least or the largest.
_SIDE_A, _CLIPPED_SIDE_A, _LEAST_SIDE_VOX = 100.0, 300.0, 7
# As a share of the specimen's deviation that much is one value.
_ONE_VALUE = 1e-4
_FEW_LEVELS = 100
_PLANES = 12
_TOLD = 0.005


@dataclass(frozen=True)
class Specimen:
    """A tomogram whose padding has the specimen's mean; whoever has none is as it was, bit by bit.

    Attributes
    ----------
    source : Voxels
        The tomogram as it is.
    """

    source: Voxels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the tomogram."""
        return self.source.shape

    @property
    def voxel_size_A(self) -> float:
        return self.source.voxel_size_A

    def slab(self, z0: int, z1: int) -> NDArray[np.float32]:
        """Planes z0 up to z1 as float32 [z, y, x], padding filled."""
        return self.slab_and_padding(z0, z1)[0]

    def slab_and_padding(self, z0: int, z1: int) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """The same, and where padding was, bool [z, y, x]; None where there is none."""
        slab = self.source.slab(z0, z1)
        padded = self._padded(slab)
        if padded is not None:
            slab = np.where(padded, self._mean, slab)
        return slab, padded

    @cached_property
    def share(self) -> float:
        """About which part of the tomogram is padding, judged on some planes."""
        return self._sampled[1]

    @cached_property
    def box(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """First voxel and that after the last along z, y, x of the box that holds the specimen."""
        depth, height, width = self.shape
        if self.share == 0.0:
            return (0, depth), (0, height), (0, width)
        first = next((z for z in range(depth) if not self._is_all_padding(z)), 0)
        last = next((z for z in reversed(range(depth)) if not self._is_all_padding(z)), depth - 1)
        kept = np.zeros((height, width), bool)
        for z in self._heights:
            padded = self._padded(self.source.slab(z, z + 1))
            kept |= True if padded is None else ~padded[0]
        rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
        if not len(rows):
            return (0, depth), (0, height), (0, width)
        return (first, last + 1), (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)

    def _is_all_padding(self, z: int) -> bool:
        padded = self._padded(self.source.slab(z, z + 1))
        return padded is not None and bool(padded.all())

    @property
    def _mean(self) -> np.float32:
        return self._sampled[0]

    @cached_property
    def _range(self) -> tuple[float, float, float]:
        """Least and largest value of some planes, and what differs by less than which is one value."""
        planes = np.concatenate([self.source.slab(z, z + 1) for z in self._heights])
        low, high = float(planes.min()), float(planes.max())
        spread = 1.4826 * float(np.median(np.abs(planes - np.median(planes))))
        return low, high, _ONE_VALUE * spread

    @cached_property
    def _sampled(self) -> tuple[np.float32, float]:
        """The mean of some planes' voxels that are specimen, and the share of those that are not."""
        total, count, voxels = 0.0, 0, 0
        for z in self._heights:
            plane = self.source.slab(z, z + 1)
            padded = self._padded(plane)
            kept = plane if padded is None else plane[~padded]
            total, count, voxels = total + float(kept.sum(dtype=np.float64)), count + kept.size, voxels + plane.size
        return np.float32(total / max(count, 1)), 1 - count / voxels

    @cached_property
    def _coarseness(self) -> int:
        """How much larger squares must be: neighbours are alike by chance where there are few levels of grey."""
        middle = self.shape[0] // 2
        return 1 if len(np.unique(self.source.slab(middle, middle + 1))) > _FEW_LEVELS else 2

    @property
    def _heights(self) -> list[int]:
        depth = self.shape[0]
        return sorted({round(z) for z in np.linspace(0, depth - 1, min(depth, _PLANES))})

    def _padded(self, slab: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        low, high, same = self._range
        sides = [
            (self._coarseness * max(round(a / self.voxel_size_A), _LEAST_SIDE_VOX)) | 1
            for a in (_SIDE_A, _CLIPPED_SIDE_A)
        ]
        found = None
        for number, plane in enumerate(slab):
            flat = _of_one_value(plane, same, sides, (low, high))
            if flat is not None:
                found = np.zeros(slab.shape, bool) if found is None else found
                found[number] = flat
        return found


def tell_padding(name: str, specimen: Specimen) -> None:
    """Say how much of a tomogram is taken for no specimen, where that is not next to nothing."""
    if specimen.share > _TOLD:
        remark(
            f"{name}: about {specimen.share:.0%} of the tomogram are of one value (padding, or erased) and taken for no specimen."
        )


def _of_one_value(
    plane: NDArray[np.float32], same: float, sides: list[int], extremes: tuple[float, float]
) -> NDArray[np.bool_] | None:
    """Where a plane [y, x] is of one value over squares, or over rows or columns along a face; None where nowhere."""
    # Whether a voxel is as its neighbours in y and in x are; beyond the faces all is alike.
    like = np.ones(plane.shape, bool)
    like[:, :-1] = np.abs(plane[:, 1:] - plane[:, :-1]) <= same
    down = np.ones(plane.shape, bool)
    down[:-1] = np.abs(plane[1:] - plane[:-1]) <= same
    rows = _from_the_faces(like[:, :-1].all(axis=1))
    columns = _from_the_faces(down[:-1].all(axis=0))
    like &= down
    faces = rows.any() or columns.any()
    if not faces and int(np.count_nonzero(like)) < sides[0] ** 2:
        return None
    flat = _opened(like, down, sides[0])
    clipped = flat & ((plane <= extremes[0]) | (plane >= extremes[1]))
    if clipped.any():
        flat &= ~clipped | _at_a_face(clipped) | _opened(like, down, sides[1])
    flat[rows] = True
    flat[:, columns] = True
    return flat if flat.any() else None


def _from_the_faces(lines: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of lines that are true those that no false one parts from the first or the last."""
    return np.asarray(np.logical_and.accumulate(lines) | np.logical_and.accumulate(lines[::-1])[::-1])


def _at_a_face(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of a mask that reach a face."""
    faces = np.ones(mask.shape, bool)
    faces[1:-1, 1:-1] = False
    return _holding(mask, faces)


def _holding(mask: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of a mask that hold a seed."""
    labels, _ = label(mask)
    return np.asarray(np.isin(labels, np.unique(labels[seeds & mask])) & mask)


def _opened(like: NDArray[np.bool_], down: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Where squares of that side are of one value: of voxels like their neighbours, and those neighbours.

    like : whether a voxel is as the next ones in x and y; down : as that in y.
    """
    out = like.view(np.uint8)
    for axis in (0, 1):
        out = minimum_filter1d(out, side, axis, mode="constant", cval=0)
    if not out.any():
        return np.zeros(like.shape, bool)
    for axis in (0, 1):
        out = maximum_filter1d(out, side, axis, mode="constant", cval=0)
    # With all that hangs together with them: the tips of a corner hold no square.
    whole = _holding(like, out.astype(bool))
    found = whole.copy()
    found[1:] |= whole[:-1]
    found[:, 1:] |= whole[:, :-1]
    found[1:, 1:] |= whole[:-1, :-1] & down[:-1, 1:]
    return found
