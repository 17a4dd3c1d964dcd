"""Scipion's objects to the engine's files, and the engine's picks to Scipion's coordinates.

Frames: Scipion's ``BOTTOM_LEFT_CORNER`` counts voxels from the corner of the volume, which is the index of
the voxel in a numpy array [z, y, x] and what the engine's tables hold. So nothing is shifted here; only
a difference of voxel size between two Scipion objects is a factor.

Orientations: the matrix M of a ``Coordinate3D`` takes the particle back to its reference. With f the reference and f'
the particle in the tomogram, both about the particle's centre, f'(r) = f(M r), r = (x, y, z): tomo.objects.convertMatrix
states so, emantomo hands M to EMAN as ``xform.align3d``, and reliontomo makes M the inverse of RELION's matrix
Rz(-psi) Ry(-tilt) Rz(-rot), which takes the reference into the particle and is the R of the engine's tables. Hence
M = Rz(rot) Ry(tilt) Rz(psi), the transpose of R. A position and its orientation apart, M has no shift.
"""

import math
import os
import re
import shutil
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

import mrcfile
import numpy as np
from pwem.convert.transformations import euler_from_matrix, euler_matrix
from pwem.emlib.image import ImageHandler
from pwem.objects import Image, Volume
from pyworkflow.object import Float
from pyworkflow.utils import cleanPath, createAbsLink
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import Coordinate3D, SetOfCoordinates3D, Tomogram

from tomotwin_view.star import Row, Table, read_table, write_tables

from .constants import BOX_ROOM
from .enabled import enabled_coordinates

MRC_EXTENSIONS = (".mrc", ".rec", ".map", ".st", ".mrcs", ".ali")
LINKED_AS_THEY_ARE = (".mrc.gz", ".tif", ".tiff")

ROUNDING = 1e-6
"""So much of a voxel more or less is rounding, and no reason for a larger box."""

VOXEL_SIZE_TOLERANCE = 1e-3
"""Relative difference of voxel sizes that is rounding, not a contradiction."""


ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")

FDR_ATTRIBUTE = "_tomotwinFDR"
"""Extended attribute of coordinates: share of false picks expected among those of the target that score at least as much."""

DIAMETER_ATTRIBUTE = "_tomotwinDiameter"
"""Extended attribute of coordinates: diameter of the particle in A. Boxes are larger, and by other software's hands the
coordinates may come away from the run that knows it."""

CORRELATION_ATTRIBUTE = "_tomotwinCorrelation"
"""Extended attribute of oriented coordinates: correlation of the molecule in this orientation with the tomogram."""


class Pick(NamedTuple):
    """One row of the engine's table of picks: voxels of the original tomogram, Angstrom, similarity, and where they are
    known RELION's angles rot, tilt and psi in degrees, the false-discovery rate expected at that similarity, and the
    correlation with the molecule so oriented."""

    x: float
    y: float
    z: float
    label: str
    score: float
    diameter: float
    angles: Optional[Tuple[float, float, float]] = None
    fdr: Optional[float] = None
    correlation: Optional[float] = None


# ------------------------------ tomograms and volumes ------------------------------
def link_tomogram(tomogram: Tomogram, folder: str) -> str:
    """Make a tomogram known under its tsId, which is what the engine names its outputs after.

    MRC files are linked as ``<tsId>.mrc``, whatever their extension; formats that the engine does not read
    are converted. Returns the path inside `folder`.
    """
    source = plain_path(tomogram.getFileName())
    kept = next((end for end in LINKED_AS_THEY_ARE if source.lower().endswith(end)), None)
    target = os.path.join(folder, tomogram.getTsId() + (kept or ".mrc"))
    cleanPath(target)
    if kept or source.lower().endswith(MRC_EXTENSIONS):
        createAbsLink(os.path.abspath(source), target)
    else:
        ImageHandler().convert(tomogram, target)
    return target


def plain_path(path: str) -> str:
    """A file name without the ``:mrc`` with which Scipion says which reader a volume wants."""
    return path[:-4] if path.endswith(":mrc") else path


def write_reference_volume(volume: Volume, path: str) -> None:
    """Bring a reference volume to a plain MRC file whose header says the voxel size that Scipion knows.

    It is linked where the file already is that, and copied where not: maps often carry no or an old voxel
    size in the header while the user gave the right one when importing.
    """
    index, name = volume.getLocation()
    source = plain_path(name)
    samplingRate = volume.getSamplingRate()
    cleanPath(path)
    isPlainMrc = index in (0, None) and source.lower().endswith((".mrc", ".map"))
    if isPlainMrc and abs(header_voxel_size(source) - samplingRate) <= VOXEL_SIZE_TOLERANCE * samplingRate:
        createAbsLink(os.path.abspath(source), path)
        return
    if isPlainMrc:
        shutil.copyfile(source, path)
        os.chmod(path, 0o644)
    else:
        ImageHandler().convert(as_image(volume), path)
    with mrcfile.open(path, mode="r+", permissive=True) as file:
        file.voxel_size = samplingRate


def as_image(volume: Volume) -> Image:
    """The location of a volume as Scipion's image library takes it, with stack index and file name."""
    image = Image()
    image.setLocation(volume.getLocation())
    return image


def header_voxel_size(path: str) -> float:
    """Voxel size in the header of an MRC file, in A; 0 where there is none."""
    with mrcfile.open(path, permissive=True, header_only=True) as file:
        return float(file.voxel_size.x)


def target_name(path: str, taken: Iterable[str]) -> str:
    """A short, unique name for a target out of its file name: letters, digits, ``_`` and ``-``."""
    stem = os.path.basename(plain_path(path))
    stem = re.sub(r"(\.gz)?$", "", stem, flags=re.IGNORECASE)
    stem = os.path.splitext(stem)[0]
    stem = re.sub(r"^import_", "", stem)  # ProtImportVolumes puts this in front
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_") or "reference"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name


# ------------------------------ coordinates ------------------------------
def box_of(diameter: float, samplingRate: float) -> int:
    """Edge of the box for a particle of this diameter (A) in voxels of `samplingRate` (A): even, `BOX_ROOM` diameters."""
    return 2 * math.ceil(BOX_ROOM * diameter / samplingRate / 2 - ROUNDING)


def known_diameter(coordinate: Coordinate3D) -> Optional[float]:
    """Diameter of the particle in A, where this software has written it to the coordinate."""
    value = getattr(coordinate, DIAMETER_ATTRIBUTE, None)
    return value.get() if value is not None and value.get() else None


def read_picks(path: str) -> List[Pick]:
    """Read the engine's ``<tsId>_picks.star``, or another of its tables of positions."""
    return [
        Pick(
            x=float(row["rlnCoordinateX"]),
            y=float(row["rlnCoordinateY"]),
            z=float(row["rlnCoordinateZ"]),
            label=row["tomotwinLabel"],
            score=float(row["tomotwinScore"]),
            diameter=float(row["tomotwinDiameterAngst"]),
            angles=_angles(row),
            fdr=float(row["tomotwinFDR"]) if "tomotwinFDR" in row else None,
            correlation=float(row["tomotwinCorrelation"]) if "tomotwinCorrelation" in row else None,
        )
        for row in read_table(path, "particles")
    ]


def _angles(row: Row) -> Optional[Tuple[float, float, float]]:
    if not all(angle in row for angle in ANGLES):
        return None
    return float(row[ANGLES[0]]), float(row[ANGLES[1]]), float(row[ANGLES[2]])


def particle_matrix(angles: Optional[Tuple[float, float, float]]) -> np.ndarray:
    """Scipion's matrix (4, 4) of a particle out of RELION's angles in degrees (see the head of this module); the
    identity where there are none, since extraction wants to see a matrix."""
    return np.eye(4) if angles is None else euler_matrix(*np.radians(angles), axes="rzyz")


def particle_angles(matrix: np.ndarray) -> Tuple[float, float, float]:
    """The inverse of `particle_matrix`: RELION's angles rot, tilt and psi in degrees."""
    rot, tilt, psi = np.degrees(euler_from_matrix(matrix, axes="rzyz"))
    if tilt < 0:  # the same orientation with a tilt of 0 to 180
        rot, tilt, psi = (rot + 360) % 360 - 180, -tilt, (psi + 360) % 360 - 180
    return float(rot), float(tilt), float(psi)


def new_coordinate(tomogram: Tomogram, pick: Pick, group: int) -> Coordinate3D:
    """A coordinate of Scipion out of a pick; where they are known it has the extended attributes `DIAMETER_ATTRIBUTE` and
    `FDR_ATTRIBUTE`."""
    coordinate = Coordinate3D()
    coordinate.setVolume(tomogram)  # before the position, which refers to its origin
    coordinate.setPosition(pick.x, pick.y, pick.z, BOTTOM_LEFT_CORNER)
    coordinate.setTomoId(tomogram.getTsId())
    coordinate.setMatrix(particle_matrix(pick.angles))
    coordinate.setGroupId(group)
    coordinate.setScore(pick.score)
    if pick.diameter > 0:
        setattr(coordinate, DIAMETER_ATTRIBUTE, Float(pick.diameter))
    if pick.fdr is not None:
        setattr(coordinate, FDR_ATTRIBUTE, Float(pick.fdr))
    return coordinate


def write_positions(
    coordinates: SetOfCoordinates3D,
    path: str,
    samplingRate: float,
    tsIds: Iterable[str],
    names: Optional[Dict[int, str]] = None,
    diameters: Optional[Dict[int, float]] = None,
    oriented: bool = False,
) -> None:
    """Write coordinates as a STAR file that the engine reads, and RELION 4.

    Parameters
    ----------
    coordinates
        Any set of coordinates; it may refer to another binning of the same tilt series.
    path
        File to write.
    samplingRate
        Voxel size of the tomograms the positions are wanted for, in A.
    tsIds
        Tomograms whose coordinates are written.
    names
        Target's name by group id, written together with the score; without it neither is. Coordinates of other groups
        are left out.
    diameters
        Particle diameter by group id, in A; where it is not given that of the coordinate, else the box size.
    oriented
        Whether their orientations are written too.
    """
    factor = coordinates.getSamplingRate() / samplingRate
    box = float((coordinates.getBoxSize() or 0) * coordinates.getSamplingRate())
    labels = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "tomotwinDiameterAngst"]
    if names is not None:
        labels += ["tomotwinLabel", "tomotwinScore"]
    if oriented:
        labels += list(ANGLES)
    tomograms: List[list] = []
    rows: List[list] = []
    for tsId in tsIds:
        tomogram = coordinates.getPrecedents()[{Tomogram.TS_ID_FIELD: tsId}]
        tomograms.append([tsId, float(samplingRate)])
        for coordinate in enabled_coordinates(coordinates, tomogram):
            position = coordinate.getPosition(BOTTOM_LEFT_CORNER)
            group = coordinate.getGroupId()
            if names is not None and group not in names:
                continue
            row: list = [tsId] + [float(value * factor) for value in position]
            row.append((diameters or {}).get(group) or known_diameter(coordinate) or box)
            if names is not None:
                row += [names[group], float(coordinate.getScore())]
            if oriented:
                row += particle_angles(coordinate.getMatrix())
            rows.append(row)
    tables: Dict[str, Table] = {
        "tomotwin_tomograms": (["rlnTomoName", "tomotwinVoxelSizeAngst"], tomograms),
        "particles": (labels, rows),
    }
    write_tables(path, tables)
