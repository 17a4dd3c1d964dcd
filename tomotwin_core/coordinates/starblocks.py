"""What the formats that are STAR files share: reading blocks, and writing them with what made the file.

A file of ours begins with

    data_tomotwin             what made the file (JSON)
    data_tomotwin_tomograms   one row per tomogram: its name, voxel size and size

which other programs skip. Columns are lists of words by name, in the order of writing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tomotwin_core.coordinates.table import Coordinates, Shape
from tomotwin_core.errors import UserError
from tomotwin_view import star

_SIZES = ("tomotwinTomogramSizeZ", "tomotwinTomogramSizeY", "tomotwinTomogramSizeX")
# What programs write where a number is not known, in lower case.
_UNKNOWN = {"<na>", "na", "n/a", "none", "null", "-nan", "?", "."}


def blocks_of(path: Path, hint: str = "give coordinates in STAR format") -> dict[str, pd.DataFrame]:
    """All blocks of a STAR file by name as tables of text, one without a loop with one row; a `UserError` where it is none."""
    try:
        blocks = star.read_blocks(str(path))
    except ValueError as error:
        reason = str(error).removeprefix(str(path)).lstrip(" ,").rstrip(".")
        raise UserError(
            f"{path} is not a STAR file that can be read ({reason}): {hint}."
        ) from None
    return {name: pd.DataFrame(one.rows, columns=one.labels, dtype=object) for name, one in blocks.items()}


def rows_of(block: pd.DataFrame | None) -> pd.DataFrame:
    """A block, or an empty table where there is none."""
    return pd.DataFrame() if block is None else block


def tomograms_of(path: Path, blocks: Mapping[str, pd.DataFrame]) -> dict[str, tuple[float, Shape | None]]:
    """What data_tomotwin_tomograms says: voxel size and shape by tomogram; the Scipion plugin writes no shapes."""
    rows = rows_of(blocks.get("tomotwin_tomograms"))
    if rows.empty:
        return {}
    # The plugin does not know sizes, and leaves them out: all of them.
    numbers_of = ["tomotwinVoxelSizeAngst", *(_SIZES if any(name in rows for name in _SIZES) else ())]
    if missing := [name for name in ("rlnTomoName", *numbers_of) if name not in rows]:
        raise UserError(f"{path} lacks the column {missing[0]} in data_tomotwin_tomograms: write the file again.")
    found: dict[str, tuple[float, Shape | None]] = {}
    for name, (size, *known) in zip(rows["rlnTomoName"], floats(path, rows, numbers_of), strict=True):
        sides = known or [0.0, 0.0, 0.0]
        if not (np.isfinite([size, *sides]).all() and 0 <= size <= 1e4 and all(0 <= side < 1e6 for side in sides)):
            raise UserError(f"{path} says a size of the tomogram {name} that cannot be: write the file again.")
        if name in found:
            raise UserError(f"{path} has the tomogram {name} twice in data_tomotwin_tomograms: write the file again.")
        z, y, x = (int(side) for side in sides)
        if size > 0:
            found[name] = float(size), (z, y, x) if min(z, y, x) > 0 else None
    return found


def floats(path: Path, rows: pd.DataFrame, columns: list[str]) -> NDArray[np.float64]:
    """Columns as numbers (N, columns), NaN where a value is said to be unknown; a `UserError` where they are none."""
    out = np.empty((len(rows), len(columns)))
    for at, column in enumerate(columns):
        values = rows[column].to_numpy(dtype=object)
        try:
            out[:, at] = values.astype(np.float64)
        except ValueError:
            known = [np.nan if str(value).lower() in _UNKNOWN else value for value in values]
            try:
                out[:, at] = np.array(known, dtype=object).astype(np.float64)
            except ValueError:
                raise UserError(
                    f"{path} has values that are no numbers in {', '.join(columns)}: correct them."
                ) from None
    return out


def numbers(names: list[str], values: NDArray[Any], spec: str) -> dict[str, list[str]]:
    """Columns of `values` (N, names) as words."""
    return {name: [format(float(value), spec) for value in values[:, i]] for i, name in enumerate(names)}


def word(text: str) -> str:
    """A text as one STAR word; a `UserError` for one that no STAR file can hold."""
    try:
        return star.word(text)
    except ValueError as error:
        raise UserError(f"{str(error).rstrip('.')}: choose another name.") from None


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
