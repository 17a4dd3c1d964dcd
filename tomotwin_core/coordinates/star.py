"""The STAR formats of positions: our own, RELION 4's and RELION 5's.

All of them have

    data_tomotwin             what made the file (JSON)
    data_tomotwin_tomograms   one row per tomogram: its name, voxel size and size
    data_particles            one row per position

and differ in how a position and its score are written:

    star     rlnCoordinateX/Y/Z, voxels from the corner; tomotwinScore; angles only where there are orientations, tomotwinFDR
             and tomotwinAccepted (1, 0, or -1 for undecided) only where known
    relion4  the same, rlnAutopickFigureOfMerit, angles, and data_optics with the voxel size. RELION counts in voxels of
             the tilt series: bring positions to its pixel size first
    relion5  rlnCenteredCoordinateXAngst/Y/Z, Angstrom from the middle of the tomogram; the rest as relion4

RELION keeps columns and skips blocks that it does not know, so label, score and diameter survive it. Any of the three is
read by its columns, and so are files that RELION 3, 4 and 5 wrote. References: RELION's documentation, STAR conventions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tomotwin_core.coordinates.frames import (
    centred_A_from_voxels,
    relion_angles_from_rotation,
    rotation_from_relion_angles,
    voxels_from_centred_A,
)
from tomotwin_core.coordinates.starblocks import (
    append,
    blocks_of,
    floats,
    head,
    loop,
    numbers,
    rows_of,
    tomograms_of,
    word,
)
from tomotwin_core.coordinates.table import (
    ACCEPTED,
    REJECTED,
    UNDECIDED,
    Beside,
    Coordinates,
    Holds,
    Shape,
    Shapes,
    shape_of,
)
from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import tomogram_name

_CORNER = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
_CENTRED_A = ["rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst"]
_ORIGIN_A = ["rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"]
_ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
# Expected false-discovery rate at the position's score; 1 accepted by a person, 0 rejected, -1 undecided.
_FDR, _ACCEPTED = "tomotwinFDR", "tomotwinAccepted"
_MASS, _CORRELATION = "tomotwinMassKDa", "tomotwinCorrelation"


@dataclass(frozen=True)
class StarFormat:
    """One of the three; `relion` adds what RELION wants to see, `centred` chooses RELION 5's frame."""

    relion: bool = False
    centred: bool = False
    endings: tuple[str, ...] = (".star",)
    holds: Holds = "tomograms"
    block: str = "particles"

    def read(self, path: Path, tomogram: str | None, voxel_size_A: float | None, shape: Shapes) -> list[Coordinates]:
        blocks = blocks_of(path)
        known = tomograms_of(blocks)
        pixel_size_A = _optics_pixel_size(blocks)
        rows = _particles(path, blocks, self.block)
        names = _tomogram_names(rows, tomogram or next(iter(known), tomogram_name(path)))
        tables = []
        for name in dict.fromkeys([*known, *names]) or [tomogram or tomogram_name(path)]:
            own_size, own_shape = known.get(name, (None, None))
            part = rows[names == name]
            if _CORNER[0] in rows:
                own_size = own_size or pixel_size_A
            size = own_size or voxel_size_A
            if size is None:
                raise UserError(f"{path} does not say the voxel size of its positions: give it in Angstrom.")
            # A shape given by the caller is in his voxels: it does not fit when the file counts in others.
            fits = voxel_size_A is None or abs(size - voxel_size_A) < 1e-3 * size
            tables.append(_table(path, part, name, size, own_shape or (shape_of(shape, name) if fits else None)))
        return tables

    def write(self, path: Path, tables: Sequence[Coordinates], made_by: dict[str, Any]) -> Beside:
        if self.relion and len({round(table.voxel_size_A, 4) for table in tables}) > 1:
            raise UserError(
                "RELION's coordinates need one voxel size, these tomograms differ: write one file for each."
            )
        # RELION wants angles in every particle; 0, 0, 0 is what it writes itself before anything is known of them.
        angles = self.relion or all(table.rotation is not None for table in tables)
        particles: dict[str, list[str]] = {}
        for table in tables:
            if self.centred and table.shape is None:
                raise UserError(
                    f"RELION 5's coordinates need the size of the tomogram {table.tomogram}, which is not known: "
                    "give it (--tomogram), or write the format star or relion4."
                )
            append(particles, self._columns(table, angles))
        text = head(tables, made_by)
        if self.relion:
            size = f"{tables[0].voxel_size_A:.6f}"
            optics = {"rlnOpticsGroup": "1", "rlnOpticsGroupName": "opticsGroup1", "rlnTomoTiltSeriesPixelSize": size}
            text += loop("optics", {name: [value] for name, value in optics.items()})
        text += loop("particles", particles)
        path.write_text(text)
        return {}

    def _columns(self, table: Coordinates, angles: bool) -> dict[str, list[str]]:
        n = len(table)
        columns = {"rlnTomoName": [word(table.tomogram)] * n}
        if self.centred:
            assert table.shape is not None
            centred = centred_A_from_voxels(table.xyz, table.voxel_size_A, table.shape)
            columns |= numbers(_CENTRED_A, centred, ".4f")
        else:
            columns |= numbers(_CORNER, table.xyz, ".5f")
        columns["tomotwinLabel"] = [word(str(label)) for label in table.label]
        columns |= numbers(["tomotwinScore"], table.score[:, None], ".7g")
        columns |= numbers(["tomotwinDiameterAngst"], table.diameter_A[:, None], ".6g")
        if table.fdr is not None:
            columns |= numbers([_FDR], table.fdr[:, None], ".4g")
        if table.mass_kDa is not None:
            columns |= numbers([_MASS], table.mass_kDa[:, None], ".6g")
        if table.correlation is not None:
            columns |= numbers([_CORRELATION], table.correlation[:, None], ".5g")
        if table.accepted is not None:
            columns[_ACCEPTED] = [str(int(a)) for a in table.accepted]
        if angles:
            rotation = np.broadcast_to(np.eye(3), (n, 3, 3)) if table.rotation is None else table.rotation
            columns |= numbers(_ANGLES, relion_angles_from_rotation(rotation), ".5f")
        if self.relion:
            columns["rlnAutopickFigureOfMerit"] = columns["tomotwinScore"]
            columns["rlnOpticsGroup"] = ["1"] * n
        return columns


STAR_FORMATS = {
    "star": StarFormat(),
    "relion4": StarFormat(relion=True),
    "relion5": StarFormat(relion=True, centred=True),
}


def _particles(path: Path, blocks: Mapping[str, Any], wanted: str) -> pd.DataFrame:
    for block in [blocks.get(wanted), blocks.get("particles"), *blocks.values()]:
        rows = rows_of(block)
        if all(name in rows for name in _CORNER) or all(name in rows for name in _CENTRED_A):
            return rows
    raise UserError(
        f"{path} has no positions: its table needs the columns {', '.join(_CORNER)}, or {', '.join(_CENTRED_A)}."
    )


def _optics_pixel_size(blocks: Mapping[str, Any]) -> float | None:
    """The tilt series' pixel size, in which RELION 4 counts; None where there is none, or several."""
    optics = rows_of(blocks.get("optics"))
    if "rlnTomoTiltSeriesPixelSize" not in optics:
        return None
    sizes = {float(size) for size in optics["rlnTomoTiltSeriesPixelSize"]}
    return sizes.pop() if len(sizes) == 1 else None


def _tomogram_names(rows: pd.DataFrame, otherwise: str) -> NDArray[np.str_]:
    if "rlnTomoName" in rows:
        return np.array(rows["rlnTomoName"], dtype=str)
    if "rlnMicrographName" in rows:  # RELION 3 names the tomogram's file
        return np.array([tomogram_name(str(name)) for name in rows["rlnMicrographName"]], dtype=str)
    return np.full(len(rows), otherwise)


def _table(path: Path, rows: pd.DataFrame, name: str, size_A: float, shape: Shape | None) -> Coordinates:
    if all(column in rows for column in _CORNER):
        xyz = floats(path, rows, _CORNER)
    elif shape is None:
        raise UserError(
            f"{path} counts from the middle of the tomogram {name}, whose size is not known: give the tomogram too."
        )
    else:
        xyz = voxels_from_centred_A(floats(path, rows, _CENTRED_A), size_A, shape)
    if all(column in rows for column in _ORIGIN_A):
        xyz = xyz - floats(path, rows, _ORIGIN_A) / size_A  # RELION's refined place is coordinate minus origin
    scores = [column for column in ("tomotwinScore", "rlnAutopickFigureOfMerit") if column in rows]
    has_angles = all(column in rows for column in _ANGLES)
    return Coordinates.from_arrays(
        xyz,
        size_A,
        name,
        shape,
        label=rows["tomotwinLabel"].to_numpy(dtype=str) if "tomotwinLabel" in rows else "",
        score=floats(path, rows, scores[:1])[:, 0] if scores else np.nan,
        diameter_A=floats(path, rows, ["tomotwinDiameterAngst"])[:, 0] if "tomotwinDiameterAngst" in rows else np.nan,
        rotation=rotation_from_relion_angles(floats(path, rows, _ANGLES)) if has_angles else None,
        fdr=floats(path, rows, [_FDR])[:, 0] if _FDR in rows else None,
        accepted=_decisions(path, rows) if _ACCEPTED in rows else None,
        mass_kDa=floats(path, rows, [_MASS])[:, 0] if _MASS in rows else None,
        correlation=floats(path, rows, [_CORRELATION])[:, 0] if _CORRELATION in rows else None,
    )


def _decisions(path: Path, rows: pd.DataFrame) -> NDArray[np.float64]:
    values = floats(path, rows, [_ACCEPTED])[:, 0]
    if not np.isin(values, (ACCEPTED, REJECTED, UNDECIDED)).all():
        raise UserError(f"{path} has values in {_ACCEPTED} that are none of 1, 0 and -1: correct them.")
    return values
