"""``.coords``: the positions of one target in one tomogram as lines ``x y z`` in voxels, and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tomotwin_core.coordinates.plausible import VoxelSizeUnknown
from tomotwin_core.coordinates.table import Beside, Coordinates, Holds, Shapes, Sizes, shape_of, size_of
from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import tomogram_name

# Characters: three numbers, and whatever other programs may put behind them.
_LONGEST_LINE = 10_000
# More than that in a line is no table of positions but everything in one line.
_MOST_COLUMNS = 100


class CoordsFormat:
    """Whitespace or commas between x, y and z; further columns and lines that start with # are passed over."""

    endings: tuple[str, ...] = (".coords", ".txt")
    holds: Holds = "target"

    def read(self, path: Path, tomogram: str | None, voxel_size_A: Sizes, shape: Shapes) -> list[Coordinates]:
        name = tomogram_name(path.stem) if tomogram is None else tomogram
        size = size_of(voxel_size_A, name)
        if size is None:
            raise VoxelSizeUnknown(path)
        rows = []
        for number, line in enumerate(text_of(path).splitlines(), start=1):
            if len(line) > _LONGEST_LINE:
                raise UserError(f"{path} is not a list of positions: line {number} has {len(line)} characters.")
            words = line.split("#")[0].replace(",", " ").split()
            if words:
                try:
                    rows.append([float(word) for word in words[:3]])
                except ValueError:
                    rows.append([])
                if len(rows[-1]) != 3 or len(words) > _MOST_COLUMNS:
                    raise UserError(f"{path} is not a list of positions: line {number} should be three numbers, x y z.")
        return [Coordinates.from_arrays(np.array(rows), size, name, shape_of(shape, name))]

    def write(self, path: Path, tables: Sequence[Coordinates], made_by: dict[str, Any]) -> Beside:
        np.savetxt(path, tables[0].xyz, fmt="%.5f")
        return {}


def text_of(path: Path) -> str:
    """The text of a file: UTF-8, with or without a mark in front, else Latin-1, of which every byte is a letter."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
