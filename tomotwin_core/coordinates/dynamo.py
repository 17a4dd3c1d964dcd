"""Dynamo tables, ``.tbl``: one line of numbers per particle, several tomograms by number.

The columns are those of Dynamo's table convention (https://wiki.dynamo.biozentrum.unibas.ch/w/index.php/Table_convention):
4-6 shift, 7-9 the angles tdrot, tilt, narot, 10 the score, 20 the tomogram's number, 22 the class, 24-26 the position
in voxels, 36 the voxel size (A); the particle is at position plus shift. Diameters have no place.

Beside NAME.tbl stand NAME.doc, Dynamo's list of tomograms (number and file; what `dtcrop` asks for), and, where there
are labels, NAME_classes.doc, the same for the classes. Without a NAME.doc a tomogram goes by its number.

Frame: MATLAB counts from 1, but what exchanges tables with Dynamo takes columns 24-26 for the voxel as it is in RELION,
from 0, without adding anything: dynamo2m 0.2 (`dynamo2warp`, by a Dynamo user and developer), copick 1.31
(`dynamo_to_copick_transform`), cryoCAT 0.7 (`DynamoMotl`), scipion-em-dynamo 3.5 (`readDynCoord`). So do we: then our
tables and theirs agree, and what `dtcrop` cuts lies within a voxel.

Angles: the reference is turned into the particle by Rz(-tdrot) Rx(-tilt) Rz(-narot), right-handed rotations of vectors,
as in all four of these.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotwin_core.coordinates.frames import relion_angles_from_rotation
from tomotwin_core.coordinates.plausible import VoxelSizeUnknown, believed_size, known_angles, one_or_given
from tomotwin_core.coordinates.table import Beside, Coordinates, Holds, Shape, Shapes, Sizes, shape_of, size_of
from tomotwin_core.coordinates.text import text_of
from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import tomogram_name

_COLUMNS = 42
# Columns counted from 0.
_SHIFT, _ANGLES, _SCORE, _TOMOGRAM, _CLASS, _POSITION, _VOXEL_SIZE = (
    slice(3, 6),
    slice(6, 9),
    9,
    19,
    21,
    slice(23, 26),
    35,
)


class DynamoFormat:
    """Tables of at least 26 columns are read, those of 42 written."""

    endings: tuple[str, ...] = (".tbl",)
    holds: Holds = "tomograms"

    def read(self, path: Path, tomogram: str | None, voxel_size_A: Sizes, shape: Shapes) -> list[Coordinates]:
        rows = _rows(path)
        files, classes = _listed(path.with_suffix(".doc")), _listed(path.with_name(f"{path.stem}_classes.doc"))
        numbers = np.unique(rows[:, _TOMOGRAM]) if len(rows) else np.array(sorted(files) or [1])
        tables = []
        for number in numbers.astype(int):
            part = rows[rows[:, _TOMOGRAM] == number]
            if number in files:
                name = tomogram_name(files[number])
            else:
                name = tomogram if tomogram is not None and len(numbers) == 1 else str(number)
            xyz = part[:, _POSITION] + part[:, _SHIFT]
            size, own_shape = _size(path, part, xyz, name, size_of(voxel_size_A, name), shape)
            angles = part[:, _ANGLES]
            tables.append(
                Coordinates.from_arrays(
                    xyz,
                    size,
                    name,
                    own_shape,
                    label=[classes.get(int(c), "") for c in part[:, _CLASS]],
                    score=part[:, _SCORE],
                    # 0, 0, 0 throughout is what a table has before anything is known of the orientations.
                    rotation=_rotation(angles) if rows[:, _ANGLES].any() and known_angles(path, angles) else None,
                )
            )
        return tables

    def write(self, path: Path, tables: Sequence[Coordinates], made_by: dict[str, Any]) -> Beside:
        labels = sorted({str(label) for table in tables for label in np.unique(table.label)} - {""})
        rows = np.zeros((sum(map(len, tables)), _COLUMNS))
        rows[:, 0] = np.arange(1, len(rows) + 1)
        rows[:, 1] = 1  # to be aligned
        rows[:, 12] = 1  # a single-axis tilt series
        start = 0
        for number, table in enumerate(tables, start=1):
            part = rows[start : start + len(table)]
            part[:, _SCORE] = table.score
            part[:, _TOMOGRAM] = number
            part[:, _CLASS] = [labels.index(str(label)) + 1 if label else 0 for label in table.label]
            part[:, _POSITION] = table.xyz
            part[:, _VOXEL_SIZE] = table.voxel_size_A
            if table.rotation is not None:
                part[:, _ANGLES] = _angles(table.rotation)
            start += len(table)
        np.savetxt(path, rows, fmt="%.8g")
        beside = {".doc": "".join(f"{n} {table.tomogram}.mrc\n" for n, table in enumerate(tables, start=1))}
        if labels:
            beside["_classes.doc"] = "".join(f"{n} {label}\n" for n, label in enumerate(labels, start=1))
        return beside


def _size(
    path: Path, part: NDArray[np.float64], xyz: NDArray[np.float64], name: str, given_A: float | None, shapes: Shapes
) -> tuple[float, Shape | None]:
    """The voxel size (A) of the positions of one tomogram, and that one's shape in such voxels where it is known."""
    what = "a voxel size (apix, column 36)"
    written = np.unique(part[:, _VOXEL_SIZE]) if part.shape[1] > _VOXEL_SIZE else np.empty(0)
    if len(written) > 1:
        raise UserError(
            f"{path} has several voxel sizes in the tomogram {name} (column 36: {', '.join(f'{s:g}' for s in written[:4])}): write a "
            "table for each."
        )
    size = believed_size(path, float(written[0]), what) if len(written) else None
    if size is not None and abs(size - 1) < 1e-4:
        # Dynamo writes 1 where it was not told.
        size = one_or_given(path, xyz, given_A, shape_of(shapes, name), what) if given_A is not None else None
    size = given_A if size is None else size
    if size is None:
        raise VoxelSizeUnknown(path)
    return size, shape_of(shapes, name, size, given_A)


def _rows(path: Path) -> NDArray[np.float64]:
    try:
        # MATLAB writes what it computed as complex (daxis, sometimes) with an imaginary part, which means nothing here.
        words = [line.split() for line in path.read_bytes().decode("ascii", "replace").splitlines() if line.strip()]
        rows = np.array(
            [[complex(word[:-1] + "j" if word.endswith("i") else word).real for word in line] for line in words],
            np.float64,
        )
    except ValueError:
        rows = np.empty((0, 1))
    if path.stat().st_size == 0:
        return np.empty((0, _COLUMNS))
    if rows.ndim != 2 or rows.shape[1] < _POSITION.stop:
        raise UserError(f"{path} is not a Dynamo table: each line should be at least {_POSITION.stop} numbers.")
    if not np.isfinite(rows[:, [_TOMOGRAM, _CLASS]]).all():
        raise UserError(f"{path} has tomograms or classes that are no numbers in the columns 20 and 22: correct them.")
    return rows


def _listed(path: Path) -> dict[int, str]:
    """Number and name of every line of a list that stands beside the table; empty where there is none."""
    if not path.is_file():
        return {}
    found = {}
    for line in text_of(path).splitlines():
        number, _, name = line.strip().partition(" ")
        if number.isdigit() and name.strip():
            found[int(number)] = name.strip()
    return found


def _rotation(tdrot_tilt_narot_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrices R (N, 3, 3) with x_tomogram = R @ x_reference."""
    if len(tdrot_tilt_narot_deg) == 0:
        return np.empty((0, 3, 3))
    turned = Rotation.from_euler("zxz", tdrot_tilt_narot_deg, degrees=True)  # Rz(narot) Rx(tilt) Rz(tdrot)
    return np.asarray(turned.inv().as_matrix(), np.float64)


def _angles(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `_rotation`.

    RELION's Rz(-psi) Ry(-tilt) Rz(-rot) becomes Rz(-tdrot) Rx(-tilt) Rz(-narot) with Ry = Rz(90) Rx Rz(-90).
    """
    rot, tilt, psi = relion_angles_from_rotation(rotation).T
    return np.stack((psi - 90, tilt, rot + 90), axis=1)
