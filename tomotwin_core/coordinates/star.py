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
    relion5  rlnCenteredCoordinateXAngst/Y/Z, Angstrom from the middle of the tomogram; the rest as relion4, but data_optics
             only where the tilt series' pixel size was given: RELION knows it from its tomograms.star

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
from tomotwin_core.coordinates.plausible import (
    VoxelSizeUnknown,
    are_parts,
    believed_size,
    known_angles,
    one_or_given,
    scaled_parts,
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
    Sizes,
    shape_of,
    size_of,
)
from tomotwin_core.errors import UserError
from tomotwin_core.remarks import remark
from tomotwin_core.tomogram import tomogram_name

_CORNER = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
_CENTRED_A = ["rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst"]
_ORIGIN_A = ["rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"]
_ORIGIN_PIXELS = ["rlnOriginX", "rlnOriginY", "rlnOriginZ"]
_IMAGE_PIXEL = ["rlnMagnification", "rlnDetectorPixelSize"]
_ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
# How the axes of an extracted subtomogram lie in the tomogram; offsets and angles are counted in them.
_SUBTOMOGRAM_ANGLES = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
_PIXEL_SIZE, _GROUP = "rlnTomoTiltSeriesPixelSize", "rlnOpticsGroup"
# Expected false-discovery rate at the position's score; 1 accepted by a person, 0 rejected, -1 undecided.
_FDR, _ACCEPTED = "tomotwinFDR", "tomotwinAccepted"
_MASS, _CORRELATION = "tomotwinMassKDa", "tomotwinCorrelation"


@dataclass(frozen=True)
class StarFormat:
    """One of the three; `relion` adds what RELION wants to see, `centred` chooses RELION 5's frame.

    tilt_series_pixel_size_A : for RELION 5, which counts in A and divides by it; by default RELION takes that of its own
    tomograms.star, the only one that is right whatever the tomogram's binning.
    """

    relion: bool = False
    centred: bool = False
    endings: tuple[str, ...] = (".star",)
    holds: Holds = "tomograms"
    block: str = "particles"
    tilt_series_pixel_size_A: float | None = None

    def read(self, path: Path, tomogram: str | None, voxel_size_A: Sizes, shape: Shapes) -> list[Coordinates]:
        blocks = blocks_of(path)
        known = tomograms_of(path, blocks)
        rows = _particles(path, blocks, self.block)
        names = _tomogram_names(rows, tomogram or next(iter(known), tomogram_name(path)))
        pixel_sizes_A = _pixel_sizes(path, blocks, rows)
        tables = []
        for name in dict.fromkeys([*known, *names]) or [tomogram or tomogram_name(path)]:
            here = names == name
            given = size_of(voxel_size_A, name)
            tables.append(
                _table(path, rows[here], name, known.get(name), pixel_sizes_A[here], given, shape_of(shape, name))
            )
        return tables

    def write(self, path: Path, tables: Sequence[Coordinates], made_by: dict[str, Any]) -> Beside:
        if self.relion and not self.centred and len({round(table.voxel_size_A, 4) for table in tables}) > 1:
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
        if self._pixel_size_A(tables) is not None:
            size = f"{self._pixel_size_A(tables):.6f}"
            optics = {"rlnOpticsGroup": "1", "rlnOpticsGroupName": "opticsGroup1", "rlnTomoTiltSeriesPixelSize": size}
            text += loop("optics", {name: [value] for name, value in optics.items()})
        text += loop("particles", particles)
        path.write_text(text, encoding="utf-8")
        self._tell_unknown(tables)
        return {}

    def _tell_unknown(self, tables: Sequence[Coordinates]) -> None:
        """Orientations that are not known and stand in the file as if they were, or are lost because others are not."""
        unknown = [table.tomogram for table in tables if table.rotation is None and len(table)]
        if self.relion and unknown:
            remark(
                f"the orientations of the positions in {', '.join(unknown[:3])}{' ...' if len(unknown) > 3 else ''} are not known: RELION's "
                "angles are written as 0 0 0."
            )
        elif unknown and len(unknown) < len([table for table in tables if len(table)]):
            remark(f"the orientations of the positions in {unknown[0]} are not known: the file is written without any.")

    def _pixel_size_A(self, tables: Sequence[Coordinates]) -> float | None:
        """What RELION shall take for the tilt series' pixel size; None leaves it to RELION's own tomograms.star."""
        if not self.relion:
            return None
        return self.tilt_series_pixel_size_A if self.centred else tables[0].voxel_size_A

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
            if self._pixel_size_A([table]) is not None:
                columns["rlnOpticsGroup"] = ["1"] * n
        return columns


STAR_FORMATS = {
    "star": StarFormat(),
    "relion4": StarFormat(relion=True),
    "relion5": StarFormat(relion=True, centred=True),
}


def _particles(path: Path, blocks: Mapping[str, pd.DataFrame], wanted: str) -> pd.DataFrame:
    for block in [blocks.get(wanted), blocks.get("particles"), *blocks.values()]:
        rows = rows_of(block)
        if all(name in rows for name in _CORNER) or all(name in rows for name in _CENTRED_A):
            return rows
    raise UserError(
        f"{path} has no positions: its table needs the columns {', '.join(_CORNER)}, or {', '.join(_CENTRED_A)}."
    )


def _pixel_sizes(path: Path, blocks: Mapping[str, pd.DataFrame], rows: pd.DataFrame) -> NDArray[np.float64]:
    """The tilt series' pixel size (A) of every row (N,), in which RELION 4 counts; NaN where the file does not say it."""
    optics = rows_of(blocks.get("optics"))
    if _PIXEL_SIZE in rows:
        return floats(path, rows, [_PIXEL_SIZE])[:, 0]
    if _PIXEL_SIZE not in optics:
        return np.full(len(rows), np.nan)
    sizes = floats(path, optics, [_PIXEL_SIZE])[:, 0]
    if len(set(sizes)) == 1:
        return np.full(len(rows), sizes[0])
    if _GROUP not in rows or _GROUP not in optics:
        raise UserError(f"{path} has several pixel sizes in data_optics and does not say which counts: add {_GROUP}.")
    by_group = dict(zip(optics[_GROUP], sizes, strict=True))
    if missing := sorted(set(rows[_GROUP]) - set(by_group)):
        raise UserError(f"{path} has particles of the optics group {missing[0]}, which data_optics lacks: add it.")
    return np.array([by_group[group] for group in rows[_GROUP]])


def _tomogram_names(rows: pd.DataFrame, otherwise: str) -> NDArray[np.str_]:
    if "rlnTomoName" in rows:
        return np.array(rows["rlnTomoName"], dtype=str)
    if "rlnMicrographName" in rows:  # RELION 3 names the tomogram's file, Warp and M its list of tilts
        names = rows["rlnMicrographName"].astype(str)
        return np.array([tomogram_name(name.removesuffix(".tomostar")) for name in names], dtype=str)
    return np.full(len(rows), otherwise)


def _table(
    path: Path,
    rows: pd.DataFrame,
    name: str,
    ours: tuple[float, Shape | None] | None,
    pixel_sizes_A: NDArray[np.float64],
    given_A: float | None,
    given_shape: Shape | None,
) -> Coordinates:
    """The rows of one tomogram. ours : what a file of ours says of it; given_* : what is known of the tomogram itself."""
    own_shape = ours[1] if ours else None
    has_corner = all(column in rows for column in _CORNER)
    has_centred = all(column in rows for column in _CENTRED_A)
    # RELION 5 believes the centred ones where a file of RELION 4 has gone through it; without the size they say nothing.
    centred = has_centred and not (has_corner and own_shape is None and given_shape is None)
    corner = None if centred else floats(path, rows, _CORNER)
    size = ours[0] if ours else None
    if size is None and corner is not None:
        size = _written_size(path, name, pixel_sizes_A, corner, given_A, given_shape)
    size = given_A if size is None else size
    if size is None:
        raise VoxelSizeUnknown(path)
    shape = own_shape or shape_of(given_shape, name, size, given_A)
    if corner is not None:
        xyz = corner
        if are_parts(xyz) and _is_warps(rows):
            xyz = scaled_parts(path, xyz, shape, name)
    elif shape is None:
        raise UserError(
            f"{path} counts from the middle of the tomogram {name}, whose size is not known: give the tomogram too."
        )
    else:
        xyz = voxels_from_centred_A(floats(path, rows, _CENTRED_A), size, shape)
    subtomogram = _rotations(path, rows, _SUBTOMOGRAM_ANGLES)
    offset = _offsets(path, rows, size)
    if offset is not None:
        # RELION's place is the coordinate less the offset, which is counted in the frame of the extracted subtomogram
        # (RELION 4 and 5, ParticleSet::getPosition), whose axes are the tomogram's where it was extracted unturned.
        xyz = xyz - (offset if subtomogram is None else np.einsum("nij,nj->ni", subtomogram, offset))
    rotation = _rotations(path, rows, _ANGLES)
    if subtomogram is not None:
        rotation = subtomogram if rotation is None else subtomogram @ rotation
    scores = [column for column in ("tomotwinScore", "rlnAutopickFigureOfMerit") if column in rows]
    return Coordinates.from_arrays(
        xyz,
        size,
        name,
        shape,
        label=rows["tomotwinLabel"].to_numpy(dtype=str) if "tomotwinLabel" in rows else "",
        score=floats(path, rows, scores[:1])[:, 0] if scores else np.nan,
        diameter_A=floats(path, rows, ["tomotwinDiameterAngst"])[:, 0] if "tomotwinDiameterAngst" in rows else np.nan,
        rotation=rotation,
        fdr=floats(path, rows, [_FDR])[:, 0] if _FDR in rows else None,
        accepted=_decisions(path, rows) if _ACCEPTED in rows else None,
        mass_kDa=floats(path, rows, [_MASS])[:, 0] if _MASS in rows else None,
        correlation=floats(path, rows, [_CORRELATION])[:, 0] if _CORRELATION in rows else None,
    )


def _written_size(
    path: Path,
    name: str,
    sizes_A: NDArray[np.float64],
    corner: NDArray[np.float64],
    given_A: float | None,
    shape: Shape | None,
) -> float | None:
    """The pixel size (A) that a file of RELION counts in, None where it does not say one that can be."""
    written = np.unique(sizes_A[np.isfinite(sizes_A)])
    if len(written) > 1:
        raise UserError(f"{path} has several pixel sizes in the tomogram {name}: write one file for each.")
    what = f"a pixel size ({_PIXEL_SIZE})"
    size = believed_size(path, float(written[0]), what) if len(written) else None
    if size is not None and abs(size - 1) < 1e-4 and given_A is not None:
        return one_or_given(path, corner, given_A, shape, what)
    return size


def _is_warps(rows: pd.DataFrame) -> bool:
    return any(
        column in rows and rows[column].astype(str).str.endswith(".tomostar").all()
        for column in ("rlnMicrographName", "rlnTomoName")
    )


def _offsets(path: Path, rows: pd.DataFrame, size_A: float) -> NDArray[np.float64] | None:
    """RELION's origins (N, 3) in voxels, None where there are none; an axis that is not there has none, as in RELION.

    RELION 3.0 counts them in pixels of the particle's image, whose size its magnification and detector say.
    """
    if any(column in rows for column in _ORIGIN_A):
        return _three(path, rows, _ORIGIN_A) / size_A
    if not any(column in rows for column in _ORIGIN_PIXELS):
        return None
    origins = _three(path, rows, _ORIGIN_PIXELS)
    if not origins.any() or not all(column in rows for column in _IMAGE_PIXEL):
        return origins
    magnification, detector_um = floats(path, rows, _IMAGE_PIXEL).T
    with np.errstate(divide="ignore", invalid="ignore"):
        image_A = detector_um * 1e4 / magnification
    # 0 is what is written where it is not known.
    image_A = np.where(np.isfinite(image_A) & (image_A > 0), image_A, size_A)
    return np.asarray(origins * (image_A / size_A)[:, None])


def _rotations(path: Path, rows: pd.DataFrame, columns: list[str]) -> NDArray[np.float64] | None:
    """Three columns of angles as matrices; None where there are none, or not of all positions, which is told."""
    if not any(column in rows for column in columns):
        return None
    angles = _three(path, rows, columns)
    return rotation_from_relion_angles(angles) if known_angles(path, angles) else None


def _three(path: Path, rows: pd.DataFrame, columns: list[str]) -> NDArray[np.float64]:
    """Columns (N, 3), 0 for one that is not there."""
    there = [column for column in columns if column in rows]
    out = np.zeros((len(rows), 3))
    out[:, [columns.index(column) for column in there]] = floats(path, rows, there)
    return out


def _decisions(path: Path, rows: pd.DataFrame) -> NDArray[np.float64]:
    values = floats(path, rows, [_ACCEPTED])[:, 0]
    if not np.isin(values, (ACCEPTED, REJECTED, UNDECIDED)).all():
        raise UserError(f"{path} has values in {_ACCEPTED} that are none of 1, 0 and -1: correct them.")
    return values
