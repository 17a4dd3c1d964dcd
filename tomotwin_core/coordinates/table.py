"""The table of positions in one tomogram that all rooms hand to each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomotwin_core.coordinates.frames import rescaled
from tomotwin_core.tomogram import resampled_shape

Shape = tuple[int, int, int]
"""A tomogram's (z, y, x) in voxels."""
Shapes = Shape | Mapping[str, Shape] | None
"""One shape for whatever tomogram, or those of several by name."""
Sizes = float | Mapping[str, float] | None
"""One voxel size (A) for whatever tomogram, or those of several by name."""
Holds = Literal["tomograms", "tomogram", "target"]
"""What one file of a format has a place for: several tomograms, one, or one target in one tomogram."""
Beside = dict[str, str]
"""Text of what stands beside a coordinates file, by what follows its name without ending (``.doc``)."""

ACCEPTED, REJECTED, UNDECIDED = 1, 0, -1
_OPTIONAL = ("rotation", "fdr", "accepted", "mass_kDa", "correlation")


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Positions in one tomogram, with what is known about each. Make one with `from_arrays`.

    Attributes
    ----------
    xyz : float64 (N, 3)
        x, y, z in voxels; a voxel's centre is its integer index.
    voxel_size_A : float
        The size of those voxels.
    shape : tuple of int (z, y, x), or None
        The tomogram's, in those voxels, where known.
    tomogram : str
        The tomogram's name (tsId).
    label : str array (N,)
        The target or species of each position; "" where there is none.
    score : float32 (N,)
        NaN where there is none.
    diameter_A : float32 (N,)
        NaN where unknown.
    rotation : float64 (N, 3, 3), or None
        Matrices R with x_tomogram = R @ x_reference + xyz, vectors x, y, z.
    fdr : float32 (N,), or None
        Expected false-discovery rate if all positions of this label and tomogram that score at least this much are kept.
    accepted : int8 (N,), or None
        What a person said of each: `ACCEPTED`, `REJECTED` or `UNDECIDED`.
    mass_kDa : float32 (N,), or None
        What the truth of a simulated tomogram says.
    correlation : float32 (N,), or None
        With the molecule in this orientation, as `tomotwin orient` found it.
    """

    xyz: NDArray[np.float64]
    voxel_size_A: float
    shape: tuple[int, int, int] | None
    tomogram: str
    label: NDArray[np.str_]
    score: NDArray[np.float32]
    diameter_A: NDArray[np.float32]
    rotation: NDArray[np.float64] | None = None
    fdr: NDArray[np.float32] | None = None
    accepted: NDArray[np.int8] | None = None
    mass_kDa: NDArray[np.float32] | None = None
    correlation: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.xyz)
        expected = {"xyz": (n, 3), "label": (n,), "score": (n,), "diameter_A": (n,)}
        expected |= {
            name: (n, 3, 3) if name == "rotation" else (n,) for name in _OPTIONAL if getattr(self, name) is not None
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has the shape {getattr(self, name).shape}, expected {shape}")
        if self.xyz.dtype != np.float64:
            raise ValueError(f"positions must be float64, not {self.xyz.dtype}")

    @classmethod
    def from_arrays(
        cls,
        xyz: ArrayLike,
        voxel_size_A: float,
        tomogram: str = "",
        shape: tuple[int, int, int] | None = None,
        label: ArrayLike = "",
        score: ArrayLike = np.nan,
        diameter_A: ArrayLike = np.nan,
        rotation: ArrayLike | None = None,
        fdr: ArrayLike | None = None,
        accepted: ArrayLike | None = None,
        mass_kDa: ArrayLike | None = None,
        correlation: ArrayLike | None = None,
    ) -> "Coordinates":
        """Build a table from whatever is known; a single label, score or diameter stands for all positions."""
        positions = np.array(xyz, np.float64).reshape(-1, 3)
        n = len(positions)
        return cls(
            xyz=positions,
            voxel_size_A=float(voxel_size_A),
            shape=None if shape is None else (int(shape[0]), int(shape[1]), int(shape[2])),
            tomogram=tomogram,
            label=np.array(np.broadcast_to(np.asarray(label, np.str_), n)),
            score=np.array(np.broadcast_to(np.asarray(score, np.float32), n)),
            diameter_A=np.array(np.broadcast_to(np.asarray(diameter_A, np.float32), n)),
            rotation=None if rotation is None else np.array(rotation, np.float64).reshape(n, 3, 3),
            fdr=None if fdr is None else np.array(np.broadcast_to(np.asarray(fdr, np.float32), n)),
            accepted=None if accepted is None else np.array(np.broadcast_to(np.asarray(accepted, np.int8), n)),
            mass_kDa=None if mass_kDa is None else np.array(np.broadcast_to(np.asarray(mass_kDa, np.float32), n)),
            correlation=None
            if correlation is None
            else np.array(np.broadcast_to(np.asarray(correlation, np.float32), n)),
        )

    @classmethod
    def concatenate(cls, tables: Sequence["Coordinates"]) -> "Coordinates":
        """One table out of several of the same tomogram; they come to the first one's voxels.

        Orientations, rates and decisions are kept when every table has them.
        """
        if not tables:
            raise ValueError("there is no table to concatenate")
        first = tables[0]
        strangers = {table.tomogram for table in tables} - {first.tomogram}
        if strangers:
            raise ValueError(f"positions of {first.tomogram} cannot be joined with those of {sorted(strangers)}")
        same = [table.to_voxel_size(first.voxel_size_A, first.shape) for table in tables]
        optional = {}
        for name in _OPTIONAL:
            known = [getattr(table, name) for table in same if getattr(table, name) is not None]
            optional[name] = np.concatenate(known) if len(known) == len(same) else None
        return cls(
            xyz=np.concatenate([table.xyz for table in same]),
            voxel_size_A=first.voxel_size_A,
            shape=first.shape,
            tomogram=first.tomogram,
            label=np.concatenate([table.label for table in same]),
            score=np.concatenate([table.score for table in same]),
            diameter_A=np.concatenate([table.diameter_A for table in same]),
            **optional,
        )

    def __len__(self) -> int:
        return len(self.xyz)

    def select(self, which: ArrayLike) -> "Coordinates":
        """The rows of a boolean mask, or those of an array of indices in its order."""
        index = np.asarray(which)
        if index.dtype != np.bool_:
            index = index.astype(np.intp)
        return replace(
            self,
            xyz=self.xyz[index],
            label=self.label[index],
            score=self.score[index],
            diameter_A=self.diameter_A[index],
            rotation=None if self.rotation is None else self.rotation[index],
            fdr=None if self.fdr is None else self.fdr[index],
            accepted=None if self.accepted is None else self.accepted[index],
            mass_kDa=None if self.mass_kDa is None else self.mass_kDa[index],
            correlation=None if self.correlation is None else self.correlation[index],
        )

    def by_label(self) -> dict[str, "Coordinates"]:
        """One table per label, labels in alphabetical order."""
        return {str(label): self.select(self.label == label) for label in np.unique(self.label)}

    def to_voxel_size(self, voxel_size_A: float, shape: tuple[int, int, int] | None = None) -> "Coordinates":
        """The same places in voxels of another size.

        Without `shape` (z, y, x) the tomogram's shape becomes that of the resampled tomogram; going back to a
        tomogram's original voxels, give the original shape, which the resampled one does not determine.
        """
        if shape is None and self.shape is not None:
            shape = resampled_shape(self.shape, self.voxel_size_A, voxel_size_A)
        return replace(
            self,
            xyz=rescaled(self.xyz, self.voxel_size_A, voxel_size_A),
            voxel_size_A=float(voxel_size_A),
            shape=shape,
        )


def shape_of(
    shapes: Shapes, tomogram: str, voxel_size_A: float | None = None, given_A: float | None = None
) -> Shape | None:
    """The shape of one tomogram, None where it is not known.

    `shapes` are in voxels of `given_A`, and say nothing of positions in others of `voxel_size_A`.
    """
    shape = shapes.get(tomogram) if isinstance(shapes, Mapping) else shapes
    if voxel_size_A is None or given_A is None or abs(voxel_size_A - given_A) <= 1e-3 * voxel_size_A:
        return shape
    return None


def size_of(sizes: Sizes, tomogram: str) -> float | None:
    """The voxel size (A) of one tomogram, None where it is not known."""
    return sizes.get(tomogram) if isinstance(sizes, Mapping) else sizes
