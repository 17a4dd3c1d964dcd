"""Whether positions and the voxel size that a file gives them can be: what cannot is refused, what is doubtful is told.

A file of positions is seldom wrong in its numbers and often in their scale: parts of the tomogram's size (Warp), voxels of
another binning, 1 A for a size that nobody knew. Too large a scale pushes positions out of the tomogram, which is refused;
too small a one pulls them towards the corner that voxels are counted from, or towards the middle that Angstrom are counted
from, which nothing but their spread shows.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomotwin_core.coordinates.table import Coordinates, Shape
from tomotwin_core.errors import UserError
from tomotwin_core.remarks import remark

# Positions that fill less than this of every axis, and would by chance with less than that probability, are told.
_FILLED, _CHANCE = 0.6, 1e-4
# What a refinement or a box at the rim puts outside, in voxels.
_RIM = 1.0
# What a voxel size of positions may be, A.
_LEAST_A, _MOST_A = 0.1, 500.0


class VoxelSizeUnknown(UserError):
    """Neither a file of positions nor whoever reads it says the size of the voxels that it counts in."""

    def __init__(self, path: Path, what: str = "its positions") -> None:
        super().__init__(f"{path} does not say the voxel size of {what}: give it in Angstrom.")


def believed_size(path: Path, written_A: float, what: str) -> float | None:
    """A voxel size (A) that a file says, None where it means nothing: 0 is a size that was not known, others are told."""
    if written_A == 0 or np.isnan(written_A):
        return None
    if not _LEAST_A <= written_A <= _MOST_A:
        remark(f"{path} says {what} of {written_A:g} A, which cannot be: it is passed over.")
        return None
    return float(written_A)


def one_or_given(
    path: Path, xyz: NDArray[np.float64], given_A: float, shape: Shape | None, what: str, middle: bool = False
) -> float:
    """The voxel size of positions of which the file says 1 A, which is what software writes that does not know it.

    xyz (N, 3) in the file's voxels; given_A and shape (z, y, x) are those of the tomogram. 1 A is believed where the
    positions fill the tomogram with it; else they are taken for voxels of `given_A`, and that is told.
    """
    if abs(given_A - 1) < 1e-4:
        return 1.0
    if shape is not None and len(xyz) and _inside(xyz / given_A, shape).all() and not _shrunken(xyz / given_A, shape):
        return 1.0
    remark(
        f"{path} says {what} of 1 A, which usually means that it is not known: its positions are taken for voxels of "
        f"{given_A:g} A."
    )
    return given_A


def known_angles(path: Path, angles: NDArray[np.float64]) -> bool:
    """Whether angles (N, 3) are known of all positions; it is told where they are not."""
    unknown = np.count_nonzero(~np.isfinite(angles).all(axis=1))
    if unknown:
        remark(f"{path} has no angles for {unknown} of {len(angles)} positions: it is read without orientations.")
    return unknown == 0


def require_sense(file: Path, table: Coordinates) -> None:
    """Refuse positions that can be none, whatever their tomogram, or not in it where its shape is known."""
    xyz = table.xyz
    if not np.isfinite(xyz).all():
        raise UserError(f"{file} has positions that are no numbers: correct or remove those lines.")
    if are_parts(xyz):
        raise UserError(
            f"{file} has positions between 0 and 1 alone in {table.tomogram}, which are parts of its size or of another scale: "
            "give positions in voxels or Angstrom."
        )
    if 2 * np.count_nonzero((xyz < -_RIM).any(axis=1)) > len(table):
        raise UserError(
            f"{file} has most of its positions below 0, outside the tomogram {table.tomogram}: give positions in voxels, counted "
            "from 0 at its corner."
        )
    require_inside(file, table)


def require_inside(file: Path, table: Coordinates) -> None:
    """Refuse positions that are not in the table's tomogram, and tell of those that hardly are; nothing without its shape."""
    xyz, shape = table.xyz, table.shape
    if shape is None or not len(table):
        return
    inside = _inside(xyz, shape)
    # Half a dozen at the rim may lie outside after a refinement; most of them outside is another frame.
    if 2 * np.count_nonzero(inside) < len(table):
        raise UserError(
            f"{file} has most of its positions outside the tomogram {table.tomogram} ({_described(table)}): check that they "
            "are of this tomogram and give their voxel size."
        )
    if not inside.all():
        remark(
            f"{file} has {np.count_nonzero(~inside)} of {len(table)} positions outside the tomogram {table.tomogram} "
            f"({_described(table)}): are they all of this tomogram?"
        )
    elif _shrunken(xyz, shape):
        low, high = np.round(xyz.min(axis=0)).astype(int), np.round(xyz.max(axis=0)).astype(int)
        places = ", ".join(f"{axis} {a} to {b}" for axis, a, b in zip("xyz", low, high, strict=True))
        remark(
            f"{file} has all {len(table)} positions in a small part of the tomogram {table.tomogram} ({places} of "
            f"{_described(table)}): is their voxel size right?"
        )


def scaled_parts(file: Path, xyz: NDArray[np.float64], shape: Shape | None, tomogram: str) -> NDArray[np.float64]:
    """Positions that Warp gives as parts of the tomogram's size, in its voxels; `UserError` where that is not known."""
    if shape is None:
        raise UserError(
            f"{file} gives positions in {tomogram} as parts of its size, as Warp does, which is not known: give the tomogram too."
        )
    remark(f"{file} gives positions in {tomogram} as parts of its size, as Warp does: they are multiplied by it.")
    return xyz * np.array(shape[::-1], float)


def are_parts(xyz: NDArray[np.float64]) -> bool:
    """Whether positions can only be parts of a size: all between 0 and 1, and not whole."""
    return bool(len(xyz) and ((xyz >= 0) & (xyz <= 1)).all() and (xyz % 1 != 0).any())


def _inside(xyz: NDArray[np.float64], shape: Shape) -> NDArray[np.bool_]:
    return np.asarray(((xyz > -_RIM) & (xyz < np.asarray(shape[::-1]) - 1 + _RIM)).all(axis=1))


def _shrunken(xyz: NDArray[np.float64], shape: Shape) -> bool:
    """Whether positions crowd about the corner or the middle as if by a wrong scale, and not by chance."""
    size = np.asarray(shape[::-1], float)
    from_corner = np.clip((xyz.max(axis=0) + 1) / size, 0, 1)
    from_middle = np.clip((np.abs(xyz - size / 2).max(axis=0) + 0.5) / (size / 2), 0, 1)
    return any(
        bool((filled < _FILLED).all() and len(xyz) * np.log(filled).sum() < np.log(_CHANCE))
        for filled in (from_corner, from_middle)
    )


def _described(table: Coordinates) -> str:
    assert table.shape is not None
    return f"{' x '.join(str(n) for n in table.shape[::-1])} voxels of {table.voxel_size_A:g} A"
