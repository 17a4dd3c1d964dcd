"""``.cbox``: the boxes of one target in one tomogram, as crYOLO and its box manager keep them.

A STAR file whose block ``cryolo`` has one row per box, in voxels. ``CoordinateX`` and ``CoordinateY`` are the box's
corner, so the middle is that plus half of ``Width`` and ``Height``; ``CoordinateZ`` is the middle itself. It is so in
crYOLO's box manager (napari-boxmanager 0.4.14, box_manager/io/cbox.py: `_make_df_data`, `_prepare_napari`) and in
Scipion's importer (scipion-em-tomo 3.12, `EmTableCoordImport`); both count the middle as we do, from 0 at the centre of
the first voxel. ``Confidence`` is the score, ``EstWidth`` the diameter in voxels; orientations have no place.

Tomogram, voxel size and label have no place either: they stand in blocks and a column of our own, which those
programs pass over.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomotwin_core.coordinates.plausible import VoxelSizeUnknown
from tomotwin_core.coordinates.starblocks import blocks_of, floats, head, loop, numbers, rows_of, tomograms_of, word
from tomotwin_core.coordinates.table import Beside, Coordinates, Holds, Shapes, Sizes, shape_of, size_of
from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, WINDOW, tomogram_name

_CORNER_AND_SIZE = ["CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height"]


class CboxFormat:
    """Format version 1.0. Files without z are picks on micrographs and are refused."""

    endings: tuple[str, ...] = (".cbox",)
    holds: Holds = "target"

    def read(self, path: Path, tomogram: str | None, voxel_size_A: Sizes, shape: Shapes) -> list[Coordinates]:
        blocks = blocks_of(path)
        rows = rows_of(blocks.get("cryolo"))
        if not all(name in rows for name in _CORNER_AND_SIZE):
            raise UserError(
                f"{path} has no boxes of a tomogram: its block cryolo needs the columns {', '.join(_CORNER_AND_SIZE)}."
            )
        own_name, (own_size, own_shape) = next(iter(tomograms_of(path, blocks).items()), (None, (None, None)))
        name = own_name or tomogram or tomogram_name(path.stem)
        given = size_of(voxel_size_A, name)
        size = own_size or given
        if size is None:
            raise VoxelSizeUnknown(path)
        x, y, z, width, height = floats(path, rows, _CORNER_AND_SIZE).T
        return [
            Coordinates.from_arrays(
                np.stack((x + width / 2, y + height / 2, z), axis=1),
                size,
                name,
                own_shape or shape_of(shape, name, size, given),
                label=rows["tomotwinLabel"].to_numpy(dtype=str) if "tomotwinLabel" in rows else "",
                score=_known(rows, "Confidence"),
                diameter_A=_known(rows, "EstWidth") * size,
            )
        ]

    def write(self, path: Path, tables: Sequence[Coordinates], made_by: dict[str, Any]) -> Beside:
        (table,) = tables
        diameter = table.diameter_A.astype(np.float64) / table.voxel_size_A
        # crYOLO's boxes are whole numbers of voxels; where the particle's size is not known, the network's window.
        box = np.round(np.where(np.isfinite(diameter), diameter, WINDOW * MODEL_VOXEL_SIZE_A / table.voxel_size_A))
        corner = table.xyz - np.stack((box / 2, box / 2, 0 * box), axis=1)
        columns = numbers(_CORNER_AND_SIZE[:3], corner, ".5f")
        columns |= numbers(["Width", "Height", "Depth"], np.repeat(box[:, None], 3, axis=1), ".0f")
        columns |= numbers(["EstWidth", "EstHeight"], np.repeat(diameter[:, None], 2, axis=1), ".6f")
        columns |= numbers(["Confidence"], table.score[:, None], ".7g")
        columns |= {name: ["nan"] * len(table) for name in ("NumBoxes", "Angle")}
        # crYOLO's word for what is not known; among numbers Scipion's reader stumbles over it, and all know nan.
        columns = {name: words if set(words) != {"nan"} else ["<NA>"] * len(table) for name, words in columns.items()}
        if (table.label != "").any():
            columns["tomotwinLabel"] = [word(str(label)) for label in table.label]
        slices = {"slice_index": [str(z) for z in np.unique(np.round(table.xyz[:, 2]).astype(int))]}
        text = "\ndata_global\n\n_cbox_format_version 1.0\n" + loop("cryolo", columns) + loop("cryolo_include", slices)
        path.write_text(text + head(tables, made_by, blanks=False), encoding="utf-8")
        return {}


def _known(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column whose unknown values are written <NA>; all unknown where there is none."""
    if column not in rows:
        return np.full(len(rows), np.nan)
    return np.array(pd.to_numeric(rows[column], errors="coerce"), np.float64)
