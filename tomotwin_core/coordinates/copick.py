"""copick's picks, ``.json``: the points of one object in one run (tomogram), in Angstrom.

The schema is copick's `CopickPicksFile` (copick 1.31, copick/models.py). A point's middle is ``location`` plus the
translation of its matrix ``transformation_`` (4 x 4, object to tomogram), Angstrom from the centre of the first voxel;
the matrix' upper left is the orientation, to be believed where ``trust_orientation`` says so. Scores have their place,
diameters do not: copick keeps a radius per object in its project. They, the label as it was written (copick's names
have no blanks or underscores) and the tomogram's size stand under ``tomotwin``, which copick passes over.

In a copick project the file is RUN/Picks/USER_SESSION_OBJECT.json in the folder ExperimentRuns.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomotwin_core.coordinates.plausible import VoxelSizeUnknown, believed_size
from tomotwin_core.coordinates.table import Beside, Coordinates, Holds, Shapes, Sizes, shape_of, size_of
from tomotwin_core.coordinates.text import text_of
from tomotwin_core.errors import UserError
from tomotwin_core.remarks import remark
from tomotwin_core.tomogram import tomogram_name

_USER, _SESSION = "tomotwin", "0"  # session 0 is what a program found


class CopickFormat:
    """One file per object and run, as copick keeps them."""

    endings: tuple[str, ...] = (".json",)
    holds: Holds = "target"

    def read(self, path: Path, tomogram: str | None, voxel_size_A: Sizes, shape: Shapes) -> list[Coordinates]:
        try:
            picks = json.loads(text_of(path))
            points = picks["points"] or []
            location = np.array([[point["location"][axis] for axis in "xyz"] for point in points], np.float64)
            matrices = [point.get("transformation_") for point in points]
            matrix = np.array([np.eye(4) if m is None else m for m in matrices], np.float64).reshape(-1, 4, 4)
            location = location.reshape(-1, 3)
            scores = [point.get("score") for point in points]
            score = np.array([np.nan if s is None else s for s in scores], np.float32)
            own = picks.get("tomotwin") or {}
            written = picks.get("voxel_spacing") or 0.0
            if not isinstance(written, int | float):
                raise TypeError("the spacing is no number")
            diameter = np.array(
                [np.nan if d is None else d for d in own.get("diameter_A", [None] * len(points))], float
            )
            own_shape = own.get("shape") and tuple(int(side) for side in own["shape"])
            name = str(picks.get("run_name") or tomogram or tomogram_name(path.stem))
            label = str(own.get("label", picks.get("pickable_object_name") or ""))
            unit = picks.get("unit", "angstrom")
            if len(diameter) != len(points) or (own_shape and (len(own_shape) != 3 or min(own_shape) < 1)):
                raise ValueError("diameters or shape of other points")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise UserError(
                f"{path} is not a file of copick's picks: it needs points with a location x, y, z."
            ) from None
        given = size_of(voxel_size_A, name)
        # Locations are in Angstrom: 1 A or nothing at all leaves them where they are, only the voxels want a size.
        size = believed_size(path, written, "a voxel spacing") or given
        if size is None:
            raise VoxelSizeUnknown(path, "its tomogram")
        if unit != "angstrom":
            raise UserError(f"{path} counts in {unit}: give copick's picks in angstrom.")
        return [
            Coordinates.from_arrays(
                (location + matrix[:, :3, 3]) / size,
                size,
                name,
                own_shape or shape_of(shape, name, size, given),
                label=label,
                score=score,
                diameter_A=diameter,
                rotation=_rotation(path, picks, matrices, matrix[:, :3, :3]),
            )
        ]

    def write(self, path: Path, tables: Sequence[Coordinates], made_by: dict[str, Any]) -> Beside:
        (table,) = tables
        label = str(table.label[0]) if len(table) else ""
        matrix = np.tile(np.eye(4), (len(table), 1, 1))
        if table.rotation is not None:
            matrix[:, :3, :3] = table.rotation
        points = [
            {
                "location": dict(zip("xyz", xyz.round(4).tolist(), strict=True)),
                "transformation_": own.round(8).tolist(),
                "instance_id": 0,
                "score": _plain(score),
            }
            for xyz, own, score in zip(table.xyz * table.voxel_size_A, matrix, table.score, strict=True)
        ]
        picks = {
            "pickable_object_name": object_name(label),
            "user_id": _USER,
            "session_id": _SESSION,
            "run_name": table.tomogram,
            "voxel_spacing": table.voxel_size_A,
            "unit": "angstrom",
            "points": points,
            "trust_orientation": table.rotation is not None,
            "tomotwin": {
                "label": label,
                "diameter_A": [_plain(d) for d in table.diameter_A],
                "shape": table.shape,
                "made_by": made_by,
            },
        }
        path.write_text(json.dumps(picks, indent=1, default=str) + "\n", encoding="utf-8")
        return {}


def object_name(label: str) -> str:
    """A label as copick names objects: what its `sanitize_name` refuses becomes a dash."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1F\x7F\s_]', "-", label).strip("-") or "particle"


def picks_path(tomogram: str, label: str) -> Path:
    """Where copick looks for the picks, in the folder ExperimentRuns of a project."""
    return Path(tomogram, "Picks", f"{_USER}_{_SESSION}_{object_name(label)}.json")


def _rotation(
    path: Path, picks: dict[str, Any], matrices: list[Any], rotation: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """The orientations (N, 3, 3), None where the file does not vouch for them or has none, which is told."""
    if not picks.get("trust_orientation", True) or np.allclose(rotation, np.eye(3)):
        return None
    unknown = sum(m is None for m in matrices)
    if unknown:
        remark(f"{path} has no orientation for {unknown} of {len(matrices)} points: it is read without orientations.")
        return None
    product = rotation @ rotation.transpose(0, 2, 1)
    if not (np.isfinite(rotation).all() and np.allclose(product, np.eye(3), atol=1e-2)):
        remark(f"{path} has matrices that are no rotations: it is read without orientations.")
        return None
    return rotation


def _plain(value: np.floating[Any]) -> float | None:
    return float(f"{value:.8g}") if np.isfinite(value) else None
