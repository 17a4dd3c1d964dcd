"""IMOD models, ``.mod``, through imodmodel: one object per label, one contour per position, in one tomogram.

Frame: an IMOD model counts x and y from the edge of the first voxel, so that its centre is at 0.5, and z from the centre
of the first slice: a volume reaches from 0 to nx and ny, and from -0.5 to nz - 0.5. IMOD's file format says so by the
flag "Z coordinates start from -0.5" (https://bio3d.colorado.edu/imod/doc/binspec.html, bit 10), which files written here
carry; model2point's option -zcoord adds the same half voxel for programs that want three equal axes. Our position
(x, y, z) is IMOD's (x + 0.5, y + 0.5, z).

An object is called like its label; the sphere of a point has the particle's radius; the score is the contour's general
value, which 3dmod shows and filters by (Edit > Object > Values). Orientations have no place. The model is called
``tomotwin TOMOGRAM`` and carries the tomogram's size and voxel size, which models of other programs often lack.
"""

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tomotwin_core.coordinates.plausible import VoxelSizeUnknown, believed_size
from tomotwin_core.coordinates.table import Beside, Coordinates, Holds, Shapes, Sizes, shape_of, size_of
from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import tomogram_name

_HALF = np.array([0.5, 0.5, 0.0])
_OURS = "tomotwin "
# General storage of an object: a contour's value, and the least and largest of them; a float is marked by flag 1 for the
# index and 4 for the value (binspec, "General storage").
_VALUE, _RANGE, _FLOAT_INDEX, _FLOAT_VALUE = 10, 11, 1, 4
_A_BY_UNIT = {1: 1e10, -2: 1e8, -3: 1e7, -6: 1e4, -9: 10.0, -10: 1.0}
_NANOMETRE = -9
_COLOURS = ((0.0, 1.0, 0.0), (1.0, 0.6, 0.0), (0.3, 0.7, 1.0), (1.0, 0.3, 0.8), (1.0, 1.0, 0.0), (0.6, 0.4, 1.0))


class ImodFormat:
    """Every point of every contour is a position; meshes and slicer angles are passed over."""

    endings: tuple[str, ...] = (".mod",)
    holds: Holds = "tomogram"

    def read(self, path: Path, tomogram: str | None, voxel_size_A: Sizes, shape: Shapes) -> list[Coordinates]:
        model = _model(path)
        header = model.header
        ours = header.name.startswith(_OURS)
        name = header.name.removeprefix(_OURS) if ours else tomogram or tomogram_name(path.stem)
        given = size_of(voxel_size_A, name)
        # Without a unit the pixel size is 1 by default and says nothing.
        written = header.pixelsize * _A_BY_UNIT[header.units] if header.units in _A_BY_UNIT else 0.0
        size = believed_size(path, written, "a pixel size") or given
        if size is None:
            raise VoxelSizeUnknown(path)
        xyz, label, score, radius = [np.empty((0, 3))], [], [], []
        for thing in model.objects:
            values = {item.index: item.value for item in thing.extra if item.type == _VALUE}
            for index, contour in enumerate(thing.contours):
                n = len(contour.points)
                xyz.append(contour.points - _HALF)
                label += [thing.header.name] * n
                score += [values.get(index, np.nan)] * n
                radius += [np.nan] * n if contour.point_sizes is None else list(contour.point_sizes)
        own_shape = (header.zmax, header.ymax, header.xmax) if ours and header.zmax > 0 else None
        known_radius = np.where(np.array(radius) > 0, radius, np.nan)
        return [
            Coordinates.from_arrays(
                np.concatenate(xyz),
                size,
                name,
                own_shape or shape_of(shape, name, size, given),
                label=np.array(label, np.str_),
                score=score,
                diameter_A=2 * known_radius * size,
            )
        ]

    def write(self, path: Path, tables: Sequence[Coordinates], made_by: dict[str, Any]) -> Beside:
        from imodmodel import ImodModel
        from imodmodel.models import ModelFlags, ModelHeader

        (table,) = tables
        depth, height, width = table.shape or (0, 0, 0)
        header = ModelHeader(
            name=_fitting(_OURS + table.tomogram, 127),
            xmax=width,
            ymax=height,
            zmax=depth,
            pixelsize=table.voxel_size_A / 10,
            units=_NANOMETRE,
            flags=ModelFlags(z_coordinates_start_from_negative_half=True, mat1_and_mat3_are_bytes=True),
        )
        parts = table.by_label().items()
        objects = [_object(_fitting(label, 63), part, number) for number, (label, part) in enumerate(parts)]
        ImodModel(header=header, objects=objects).to_file(path)
        return {}


def _object(label: str, table: Coordinates, number: int) -> Any:
    from imodmodel.models import Contour, ContourHeader, GeneralStorage, Object, ObjectFlags, ObjectHeader

    radius = table.diameter_A.astype(np.float64) / table.voxel_size_A / 2
    contours = [
        Contour(header=ContourHeader(), points=point[None], point_sizes=np.array([r]) if np.isfinite(r) else None)
        for point, r in zip(table.xyz + _HALF, radius, strict=True)
    ]
    known = np.flatnonzero(np.isfinite(table.score))
    extra = [GeneralStorage(type=_VALUE, flags=_FLOAT_VALUE, index=int(i), value=float(table.score[i])) for i in known]
    if extra:
        low, high = float(table.score[known].min()), float(table.score[known].max())
        extra.append(GeneralStorage(type=_RANGE, flags=_FLOAT_INDEX | _FLOAT_VALUE, index=low, value=high))
    header = ObjectHeader(
        name=label,
        flags=ObjectFlags(scattered=True, use_value=bool(extra)),
        pdrawsize=4,
    )
    return Object(header=header, contours=contours, extra=extra, color=_COLOURS[number % len(_COLOURS)])


def _fitting(name: str, room: int) -> str:
    """A name that an IMOD model has room for; cut off it would be another one."""
    if len(name.encode()) > room:
        raise UserError(
            f"{name} is too long a name for an IMOD model, which has room for {room} bytes: give a shorter one."
        )
    return name


class _Complete(io.BytesIO):
    """Bytes that end with an error rather than with nothing, which imodmodel would wait for without end."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            raise EOFError
        return data


def _model(path: Path) -> Any:
    from imodmodel.parsers import parse_model

    try:
        content = path.read_bytes()
        if not content.startswith(b"IMOD"):
            raise ValueError("no IMOD model")
        model = parse_model(_Complete(content))
        if any(len(thing.contours) != thing.header.contsize for thing in model.objects):
            raise ValueError("contours are missing")
        return model
    # All that imodmodel, struct and pydantic (ValueError) raise on what is no model, or half of one.
    except (ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError, struct.error, MemoryError):
        raise UserError(f"{path} is not an IMOD model that can be read: save it again in 3dmod.") from None
