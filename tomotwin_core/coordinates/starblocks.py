"""What the formats that are STAR files share: reading blocks, and writing them with what made the file.

A file of ours begins with

    data_tomotwin             what made the file (JSON)
    data_tomotwin_tomograms   one row per tomogram: its name, voxel size and size

which other programs skip. Columns are lists of words by name, in the order of writing.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import starfile
from numpy.typing import NDArray

from tomotwin_core.coordinates.table import Coordinates, Shape
from tomotwin_core.errors import UserError

_NAMES = ("rlnTomoName", "rlnMicrographName", "tomotwinLabel", "tomotwinProvenance", "rlnOpticsGroupName")
_SIZES = ("tomotwinTomogramSizeZ", "tomotwinTomogramSizeY", "tomotwinTomogramSizeX")


def blocks_of(path: Path) -> Mapping[str, Any]:
    """All blocks of a STAR file by name; a `UserError` where it is none."""
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=list(_NAMES))
    except (ValueError, TypeError, LookupError):  # all that starfile, pandas and shlex raise on what is no STAR file
        blocks = {}
    if not isinstance(blocks, dict) or not blocks:
        raise UserError(f"{path} is not a STAR file that can be read: give coordinates in STAR format.")
    return blocks


def rows_of(block: Any) -> pd.DataFrame:
    """A block as a table: one without a loop is a table of one row."""
    if isinstance(block, dict):
        return pd.DataFrame({name: [value] for name, value in block.items()})
    return block if isinstance(block, pd.DataFrame) else pd.DataFrame()


def tomograms_of(blocks: Mapping[str, Any]) -> dict[str, tuple[float, Shape | None]]:
    """What data_tomotwin_tomograms says: voxel size and shape by tomogram."""
    found = {}
    for _, row in rows_of(blocks.get("tomotwin_tomograms")).iterrows():
        z, y, x = (int(row.get(name, 0)) for name in _SIZES)
        if float(row.get("tomotwinVoxelSizeAngst", 0)) > 0:
            found[str(row["rlnTomoName"])] = float(row["tomotwinVoxelSizeAngst"]), (z, y, x) if z > 0 else None
    return found


def floats(path: Path, rows: pd.DataFrame, columns: list[str]) -> NDArray[np.float64]:
    """Columns as numbers (N, columns); a `UserError` where they are none."""
    try:
        return np.array(rows[columns], dtype=np.float64)
    except ValueError:
        raise UserError(f"{path} has values that are no numbers in {', '.join(columns)}: correct them.") from None


def numbers(names: list[str], values: NDArray[Any], spec: str) -> dict[str, list[str]]:
    """Columns of `values` (N, names) as words."""
    return {name: [format(float(value), spec) for value in values[:, i]] for i, name in enumerate(names)}


def word(text: str) -> str:
    """A text as one STAR word."""
    plain = text.replace('"', "").replace("'", "")
    return plain if plain and shlex.quote(plain) == plain else f'"{plain}"'


def append(columns: dict[str, list[str]], more: dict[str, list[str]]) -> None:
    """Lengthen every column."""
    for name, values in more.items():
        columns.setdefault(name, []).extend(values)


def loop(name: str, columns: dict[str, list[str]]) -> str:
    """A block of rows as text."""
    labels = "".join(f"_{label} #{number}\n" for number, label in enumerate(columns, start=1))
    rows = "".join("  ".join(row) + "\n" for row in zip(*columns.values(), strict=True))
    return f"\ndata_{name}\n\nloop_\n{labels}{rows}\n"


def head(tables: Sequence[Coordinates], made_by: dict[str, Any], blanks: bool = True) -> str:
    """The two blocks that begin a file of ours, as text; without `blanks` for readers that split quoted values."""
    made = json.dumps(made_by, default=str, separators=None if blanks else (",", ":"))
    made = made.replace("'", "\\u0027")  # the value stands between single quotes
    if not blanks:
        made = made.replace(" ", "\\u0020")
    tomograms: dict[str, list[str]] = {}
    for table in tables:
        size = table.shape or (0, 0, 0)  # 0 stands for unknown
        append(
            tomograms,
            {"rlnTomoName": [word(table.tomogram)], "tomotwinVoxelSizeAngst": [f"{table.voxel_size_A:.6f}"]}
            | {name: [str(n)] for name, n in zip(_SIZES, size, strict=True)},
        )
    return f"\ndata_tomotwin\n\n_tomotwinProvenance '{made}'\n\n" + loop("tomotwin_tomograms", tomograms)
