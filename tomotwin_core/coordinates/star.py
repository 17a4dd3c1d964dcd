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

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import starfile
from numpy.typing import NDArray

from tomotwin_core.coordinates.frames import (
    centred_A_from_voxels,
    relion_angles_from_rotation,
    rotation_from_relion_angles,
    voxels_from_centred_A,
)
from tomotwin_core.coordinates.table import ACCEPTED, REJECTED, UNDECIDED, Coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import tomogram_name

Shape = tuple[int, int, int]

_CORNER = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
_CENTRED_A = ["rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst"]
_ORIGIN_A = ["rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"]
_ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
_NAMES = ("rlnTomoName", "rlnMicrographName", "tomotwinLabel", "tomotwinProvenance", "rlnOpticsGroupName")
# Expected false-discovery rate at the position's score; 1 accepted by a person, 0 rejected, -1 undecided.
_FDR, _ACCEPTED = "tomotwinFDR", "tomotwinAccepted"
_SIZES = ["tomotwinTomogramSizeZ", "tomotwinTomogramSizeY", "tomotwinTomogramSizeX"]


@dataclass(frozen=True)
class StarFormat:
    """One of the three; `relion` adds what RELION wants to see, `centred` chooses RELION 5's frame."""

    relion: bool = False
    centred: bool = False
    endings: tuple[str, ...] = (".star",)

    def read(
        self, path: Path, tomogram: str | None, voxel_size_A: float | None, shape: Shape | None
    ) -> list[Coordinates]:
        blocks = _blocks(path)
        known = _tomograms(blocks)
        pixel_size_A = _optics_pixel_size(blocks)
        rows = _particles(path, blocks)
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
            fits = shape is not None and (voxel_size_A is None or abs(size - voxel_size_A) < 1e-3 * size)
            tables.append(_table(path, part, name, size, own_shape or (shape if fits else None)))
        return tables

    def write(self, path: Path, tables: Sequence[Coordinates], made_by: dict[str, Any]) -> None:
        made = json.dumps(made_by, default=str).replace("'", "\\u0027")  # the value stands between single quotes
        if self.relion and len({round(table.voxel_size_A, 4) for table in tables}) > 1:
            raise UserError(
                "RELION's coordinates need one voxel size, these tomograms differ: write one file for each."
            )
        # RELION wants angles in every particle; 0, 0, 0 is what it writes itself before anything is known of them.
        angles = self.relion or all(table.rotation is not None for table in tables)
        tomograms: dict[str, list[str]] = {}
        particles: dict[str, list[str]] = {}
        for table in tables:
            if self.centred and table.shape is None:
                raise UserError(
                    f"RELION 5's coordinates need the size of the tomogram {table.tomogram}, which is not known: "
                    "write the format star or relion4."
                )
            _append(tomograms, self._tomogram(table))
            _append(particles, self._columns(table, angles))
        text = f"\ndata_tomotwin\n\n_tomotwinProvenance '{made}'\n\n" + _loop("tomotwin_tomograms", tomograms)
        if self.relion:
            size = f"{tables[0].voxel_size_A:.6f}"
            optics = {"rlnOpticsGroup": "1", "rlnOpticsGroupName": "opticsGroup1", "rlnTomoTiltSeriesPixelSize": size}
            text += _loop("optics", {name: [value] for name, value in optics.items()})
        text += _loop("particles", particles)
        path.write_text(text)

    def _tomogram(self, table: Coordinates) -> dict[str, list[str]]:
        size = table.shape or (0, 0, 0)  # 0 stands for unknown
        columns = {"rlnTomoName": [_word(table.tomogram)], "tomotwinVoxelSizeAngst": [f"{table.voxel_size_A:.6f}"]}
        return columns | {name: [str(n)] for name, n in zip(_SIZES, size, strict=True)}

    def _columns(self, table: Coordinates, angles: bool) -> dict[str, list[str]]:
        n = len(table)
        columns = {"rlnTomoName": [_word(table.tomogram)] * n}
        if self.centred:
            assert table.shape is not None
            centred = centred_A_from_voxels(table.xyz, table.voxel_size_A, table.shape)
            columns |= _numbers(_CENTRED_A, centred, ".4f")
        else:
            columns |= _numbers(_CORNER, table.xyz, ".5f")
        columns["tomotwinLabel"] = [_word(str(label)) for label in table.label]
        columns |= _numbers(["tomotwinScore"], table.score[:, None], ".7g")
        columns |= _numbers(["tomotwinDiameterAngst"], table.diameter_A[:, None], ".6g")
        if table.fdr is not None:
            columns |= _numbers([_FDR], table.fdr[:, None], ".4g")
        if table.accepted is not None:
            columns[_ACCEPTED] = [str(int(a)) for a in table.accepted]
        if angles:
            rotation = np.broadcast_to(np.eye(3), (n, 3, 3)) if table.rotation is None else table.rotation
            columns |= _numbers(_ANGLES, relion_angles_from_rotation(rotation), ".5f")
        if self.relion:
            columns["rlnAutopickFigureOfMerit"] = columns["tomotwinScore"]
            columns["rlnOpticsGroup"] = ["1"] * n
        return columns


STAR_FORMATS = {
    "star": StarFormat(),
    "relion4": StarFormat(relion=True),
    "relion5": StarFormat(relion=True, centred=True),
}


def _blocks(path: Path) -> Mapping[str, Any]:
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=list(_NAMES))
    except (ValueError, TypeError, LookupError):  # all that starfile, pandas and shlex raise on what is no STAR file
        blocks = {}
    if not isinstance(blocks, dict) or not blocks:
        raise UserError(f"{path} is not a STAR file that can be read: give coordinates in STAR format.")
    return blocks


def _rows(block: Any) -> pd.DataFrame:
    """A block as a table: one without a loop is a table of one row."""
    if isinstance(block, dict):
        return pd.DataFrame({name: [value] for name, value in block.items()})
    return block if isinstance(block, pd.DataFrame) else pd.DataFrame()


def _particles(path: Path, blocks: Mapping[str, Any]) -> pd.DataFrame:
    for block in [blocks.get("particles"), *blocks.values()]:
        rows = _rows(block)
        if all(name in rows for name in _CORNER) or all(name in rows for name in _CENTRED_A):
            return rows
    raise UserError(
        f"{path} has no positions: its table needs the columns {', '.join(_CORNER)}, or {', '.join(_CENTRED_A)}."
    )


def _tomograms(blocks: Mapping[str, Any]) -> dict[str, tuple[float, Shape | None]]:
    """What data_tomotwin_tomograms says: voxel size and shape by tomogram."""
    found = {}
    for _, row in _rows(blocks.get("tomotwin_tomograms")).iterrows():
        z, y, x = (int(row.get(name, 0)) for name in _SIZES)
        if float(row.get("tomotwinVoxelSizeAngst", 0)) > 0:
            found[str(row["rlnTomoName"])] = float(row["tomotwinVoxelSizeAngst"]), (z, y, x) if z > 0 else None
    return found


def _optics_pixel_size(blocks: Mapping[str, Any]) -> float | None:
    """The tilt series' pixel size, in which RELION 4 counts; None where there is none, or several."""
    optics = _rows(blocks.get("optics"))
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
        xyz = _floats(path, rows, _CORNER)
    elif shape is None:
        raise UserError(
            f"{path} counts from the middle of the tomogram {name}, whose size is not known: give the tomogram too."
        )
    else:
        xyz = voxels_from_centred_A(_floats(path, rows, _CENTRED_A), size_A, shape)
    if all(column in rows for column in _ORIGIN_A):
        xyz = xyz - _floats(path, rows, _ORIGIN_A) / size_A  # RELION's refined place is coordinate minus origin
    scores = [column for column in ("tomotwinScore", "rlnAutopickFigureOfMerit") if column in rows]
    has_angles = all(column in rows for column in _ANGLES)
    return Coordinates.from_arrays(
        xyz,
        size_A,
        name,
        shape,
        label=rows["tomotwinLabel"].to_numpy(dtype=str) if "tomotwinLabel" in rows else "",
        score=_floats(path, rows, scores[:1])[:, 0] if scores else np.nan,
        diameter_A=_floats(path, rows, ["tomotwinDiameterAngst"])[:, 0] if "tomotwinDiameterAngst" in rows else np.nan,
        rotation=rotation_from_relion_angles(_floats(path, rows, _ANGLES)) if has_angles else None,
        fdr=_floats(path, rows, [_FDR])[:, 0] if _FDR in rows else None,
        accepted=_decisions(path, rows) if _ACCEPTED in rows else None,
    )


def _decisions(path: Path, rows: pd.DataFrame) -> NDArray[np.float64]:
    values = _floats(path, rows, [_ACCEPTED])[:, 0]
    if not np.isin(values, (ACCEPTED, REJECTED, UNDECIDED)).all():
        raise UserError(f"{path} has values in {_ACCEPTED} that are none of 1, 0 and -1: correct them.")
    return values


def _floats(path: Path, rows: pd.DataFrame, columns: list[str]) -> NDArray[np.float64]:
    try:
        return np.array(rows[columns], dtype=np.float64)
    except ValueError:
        raise UserError(f"{path} has values that are no numbers in {', '.join(columns)}: correct them.") from None


def _numbers(names: list[str], values: NDArray[Any], spec: str) -> dict[str, list[str]]:
    return {name: [format(float(value), spec) for value in values[:, i]] for i, name in enumerate(names)}


def _word(text: str) -> str:
    """A text as one STAR word."""
    plain = text.replace('"', "").replace("'", "")
    return plain if plain and shlex.quote(plain) == plain else f'"{plain}"'


def _append(columns: dict[str, list[str]], more: dict[str, list[str]]) -> None:
    for name, values in more.items():
        columns.setdefault(name, []).extend(values)


def _loop(name: str, columns: dict[str, list[str]]) -> str:
    labels = "".join(f"_{label} #{number}\n" for number, label in enumerate(columns, start=1))
    rows = "".join("  ".join(row) + "\n" for row in zip(*columns.values(), strict=True))
    return f"\ndata_{name}\n\nloop_\n{labels}{rows}\n"
