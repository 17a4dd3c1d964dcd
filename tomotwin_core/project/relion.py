"""RELION 5's tomograms.star (or tilt_series.star) with the STAR file of each tilt series that it names.

tomograms.star, data_global: rlnTomoName, rlnVoltage (kV), rlnSphericalAberration (mm), rlnAmplitudeContrast, rlnTomoHand,
rlnTomoTiltSeriesPixelSize (A), rlnTomoTiltSeriesStarFile (relative to the project's folder), rlnTomoReconstructedTomogram.
Tilt series: rlnTomoYTilt (the refined angle; rlnTomoNominalStageTiltAngle before the alignment), rlnTomoZRot,
rlnMicrographPreExposure (e/A^2 before the tilt), rlnDefocusU and V (A), rlnDefocusAngle (degrees), rlnPhaseShift (degrees).
RELION 4 has the tilt series as further blocks of the same file, which is read, too, as far as it has angles.

Signs are those of RELION 5's formulas. `Tomogram::setProjectionMatrix` turns by rlnTomoYTilt right-handed about y
(t3Matrix.h), which is the sense of `simulation.gridding`. `Tomogram::getCtf` adds hand * depth to the underfocus, depth being
the turned z, -x sin(tilt) in the plane of the middle: so rlnTomoHand -1, its default, is underfocus that grows with
x sin(tilt), `defocus_hand` 1. Tilts that were excluded are not in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tomotwin_core.coordinates.starblocks import blocks_of, floats, rows_of
from tomotwin_core.errors import UserError
from tomotwin_core.names import require_name
from tomotwin_core.project.series import TiltSeries, Values

_HINT = "give tomograms.star of RELION 5, with its tilt series"
_SERIES_FILE = "rlnTomoTiltSeriesStarFile"
_OF_SERIES = {
    "voltage_kV": "rlnVoltage",
    "cs_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "pixel_size_A": "rlnTomoTiltSeriesPixelSize",
}
_ANGLES = ("rlnTomoYTilt", "rlnTomoNominalStageTiltAngle")
_AXES = ("rlnTomoZRot", "rlnTomoNominalTiltAxisAngle")
# How many folders above tomograms.star RELION's own may lie: PROJECT/Tomograms/job010/tomograms.star
_UPWARDS = 4


def is_relion_project(path: Path) -> bool:
    """Whether a STAR file lists tilt series, rather than particles or anything else; no for one that cannot be read."""
    if path.suffix != ".star" or not path.is_file():
        return False
    try:
        return _is_list(blocks_of(path))
    except UserError:
        return False


def read_relion(path: Path) -> dict[str, Callable[[], TiltSeries]]:
    """What reads each tilt series, by the name of its tomogram, in the order of the file."""
    blocks = blocks_of(path, _HINT)
    if not _is_list(blocks):
        raise UserError(f"{path}: lists no tilt series ({_SERIES_FILE}); give RELION 5's tomograms.star")
    rows = blocks["global"]
    found: dict[str, Callable[[], TiltSeries]] = {}
    for at in range(len(rows)):
        row = rows.iloc[[at]]
        name = require_name(row["rlnTomoName"].iloc[0], path)
        if name in found:
            raise UserError(f"{path}: lists the tomogram {name} twice; correct the file")
        found[name] = partial(_series, path, name, row, blocks)
    return found


def reconstructed(path: Path) -> dict[str, str]:
    """File names, without folders, of the tomograms that RELION reconstructed, by name of the tomogram."""
    rows = rows_of(blocks_of(path, _HINT).get("global"))
    columns = [c for c in ("rlnTomoReconstructedTomogram", "rlnTomoDenoisedTomogram") if c in rows]
    return {Path(str(row[c])).name: str(row["rlnTomoName"]) for c in columns for _, row in rows.iterrows()}


def project_folder(path: Path) -> Path:
    """The folder that RELION is called in, from which its paths count: the one above in which the tilt series lie as the list
    says; that of the list itself where there is none."""
    here = path.resolve().parent
    rows = rows_of(blocks_of(path, _HINT).get("global"))
    stated = str(rows[_SERIES_FILE].iloc[0]) if _SERIES_FILE in rows and len(rows) else ""
    above = (folder for folder in (here, *here.parents[:_UPWARDS]) if stated and (folder / stated).is_file())
    return next(above, here)


def _is_list(blocks: Mapping[str, Any]) -> bool:
    rows = rows_of(blocks.get("global"))
    if "rlnTomoName" not in rows or rows.empty:
        return False
    embedded = any(name in blocks for name in map(str, rows["rlnTomoName"]))
    return _SERIES_FILE in rows or embedded


def _series(path: Path, name: str, row: Any, blocks: Mapping[str, Any]) -> TiltSeries:
    source, tilts = path, blocks.get(name)
    if _SERIES_FILE in row:
        source = _beside(path, str(row[_SERIES_FILE].iloc[0]))
        tables = blocks_of(source, _HINT)
        tilts = tables.get(name, next(iter(tables.values())))
    if tilts is None or tilts.empty:
        raise UserError(f"{source}: has no tilts of {name}; give another project")

    def one(*columns: str) -> Values:
        """The first of these columns that is there and known for all tilts."""
        for column in columns:
            if column in tilts:
                values = floats(source, tilts, [column])[:, 0]
                if np.isfinite(values).all():
                    return tuple(values.tolist())
                if np.isfinite(values).any():
                    raise UserError(f"{source}: {column} has no number for some of its tilts; correct the file")
        return ()

    angles = one(*_ANGLES)
    if not angles:
        raise UserError(f"{source}: has no {' and no '.join(_ANGLES)} of every tilt; align the tilt series first")
    u, v, direction = (np.array(one(column)) for column in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"))
    known: dict[str, Any] = {key: _known(path, row, column) for key, column in _OF_SERIES.items()}
    if known["pixel_size_A"] is None:
        known["pixel_size_A"] = _known(path, row, "rlnMicrographOriginalPixelSize")
    hand, dose = _known(path, row, "rlnTomoHand"), _known(path, row, "rlnTomoImportFractionalDose")
    both = len(u) > 0 and len(v) > 0
    return TiltSeries(
        name,
        str(source),
        angles,
        one(*_AXES),
        one("rlnMicrographPreExposure"),
        (dose,) * len(angles) if dose else (),
        tuple(((u + v) / 2e4).tolist()) if both else tuple((u / 1e4).tolist()),
        tuple((np.abs(u - v) / 2e4).tolist()) if both else (),
        tuple(np.where(v > u, direction - 90, direction).tolist()) if both and len(direction) else (),
        one("rlnPhaseShift"),
        defocus_hand=None if not hand else (-1 if hand > 0 else 1),
        **known,
    )


def _known(path: Path, row: Any, column: str) -> float | None:
    if column not in row:
        return None
    value = float(floats(path, row, [column])[0, 0])
    return value if np.isfinite(value) else None


def _beside(path: Path, named: str) -> Path:
    """The file of a tilt series: relative to a folder above, as RELION is called in its project's, or where the list lies."""
    stated = Path(named)
    if stated.is_absolute() and stated.is_file():
        return stated
    here = path.resolve().parent
    tried = [above / stated for above in (here, *here.parents[:_UPWARDS])] if not stated.is_absolute() else []
    tried += [here / stated.parent.name / stated.name, here / stated.name]
    for one in tried:
        if one.is_file():
            return one
    raise UserError(
        f"{path}: names the tilt series {named}, which is in no folder above; keep the project's folders together"
    )
