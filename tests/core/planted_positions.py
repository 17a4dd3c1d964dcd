"""Files of positions as other programs write them, for tests."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomotwin_core.coordinates import Coordinates, read_coordinates

SHAPE, SIZE_A = (60, 120, 150), 10.0
PLACES = np.random.default_rng(0).uniform([8, 8, 8], [142, 112, 52], (12, 3))
CORNER = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]


def star(path: Path, columns: list[str], rows: list[list[object]] | NDArray[np.float64], before: str = "") -> Path:
    labels = "".join(f"_{name} #{i}\n" for i, name in enumerate(columns, 1))
    text = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    path.write_text(f"{before}\ndata_particles\n\nloop_\n{labels}{text}\n")
    return path


def optics(*sizes: object) -> str:
    rows = "".join(f"{i} {size}\n" for i, size in enumerate(sizes, 1))
    return f"\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnTomoTiltSeriesPixelSize #2\n{rows}\n"


def table(
    path: Path, places: NDArray[np.float64], apix: float | NDArray[np.float64] = 0.0, angles: float = 0.0
) -> Path:
    rows = np.zeros((len(places), 42))
    rows[:, 0], rows[:, 19], rows[:, 23:26], rows[:, 35], rows[:, 6:9] = 1, 1, places, apix, angles
    np.savetxt(path, rows, fmt="%.7g")
    return path


def copick(path: Path, places: NDArray[np.float64], spacing: object, **more: object) -> Path:
    points = [{"location": dict(zip("xyz", p, strict=True)), **more} for p in (places * SIZE_A).tolist()]
    path.write_text(json.dumps({"run_name": "t", "voxel_spacing": spacing, "points": points}))
    return path


def read(path: Path) -> Coordinates:
    """As a command reads it that knows the tomogram, in the tomogram's voxels."""
    return read_coordinates(path, "t", SIZE_A, SHAPE).to_voxel_size(SIZE_A, SHAPE)
