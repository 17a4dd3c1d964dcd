"""Reading and writing positions; the registry of formats.

A format is one object with `read` and `write` in a module of its own, entered in `FORMATS` under the name that options
use. A file is read by the first format that knows its ending.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tomotwin_core.coordinates.cbox import CboxFormat
from tomotwin_core.coordinates.copick import CopickFormat, picks_path
from tomotwin_core.coordinates.dynamo import DynamoFormat
from tomotwin_core.coordinates.imod import ImodFormat
from tomotwin_core.coordinates.plausible import require_inside, require_sense
from tomotwin_core.coordinates.star import STAR_FORMATS
from tomotwin_core.coordinates.table import REJECTED, Beside, Coordinates, Holds, Shapes, Sizes, shape_of, size_of
from tomotwin_core.coordinates.text import CoordsFormat
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path, provenance
from tomotwin_core.names import require_name


class Format(Protocol):
    """One file format of positions."""

    @property
    def endings(self) -> tuple[str, ...]:
        """File name endings in lower case; the first one is written."""

    @property
    def holds(self) -> Holds:
        """What one file has a place for."""

    def read(self, path: Path, tomogram: str | None, voxel_size_A: Sizes, shape: Shapes) -> list[Coordinates]:
        """One table per tomogram in the file; the arguments stand in where the file does not say."""

    def write(self, path: Path, tables: Sequence[Coordinates], made_by: dict[str, Any]) -> Beside:
        """Write what one file `holds` to a path that does not exist yet; what shall stand beside it is returned."""


FORMATS: dict[str, Format] = {
    **STAR_FORMATS,
    "coords": CoordsFormat(),
    "cbox": CboxFormat(),
    "dynamo": DynamoFormat(),
    "copick": CopickFormat(),
    "imod": ImodFormat(),
}
ENDINGS = tuple(sorted({ending for handler in FORMATS.values() for ending in handler.endings}))
"""Of all files that are read as positions."""


def read_coordinates(
    path: str | os.PathLike[str],
    tomogram: str | None = None,
    voxel_size_A: Sizes = None,
    shape: Shapes = None,
) -> Coordinates:
    """Read the positions of one tomogram.

    Parameters
    ----------
    path : path
        ``.star`` (ours, RELION 3, 4 or 5), ``.coords``/``.txt``, ``.cbox``, ``.tbl`` (Dynamo), ``.json`` (copick), ``.mod``
        (IMOD).
    tomogram : str, optional
        Which tomogram's positions; needed where the file has several.
    voxel_size_A, shape : optional
        The voxel size (A) and shape (z, y, x) of the tomogram the positions refer to, where the file does not say;
        where it has several tomograms, both may hold theirs by name. What the file says of voxels counts; positions that
        lie in the tomogram whatever their voxel size are taken.

    Raises
    ------
    UserError
        When the file is missing, not of its format, without positions, without the wanted tomogram, or does not say
        its voxel size and none is given.
    """
    tables = read_all_coordinates(path, tomogram, voxel_size_A, shape)
    if tomogram is not None:
        wanted = [table for table in tables if table.tomogram == tomogram]
        if not wanted:
            names = ", ".join(table.tomogram for table in tables[:5])
            raise UserError(f"{path} has no positions of the tomogram {tomogram} but of {names}: give another file.")
        return wanted[0]
    if len(tables) > 1:
        names = ", ".join(table.tomogram for table in tables[:5])
        raise UserError(f"{path} has positions of {len(tables)} tomograms ({names}): name the one that is wanted.")
    return tables[0]


def read_all_coordinates(
    path: str | os.PathLike[str],
    tomogram: str | None = None,
    voxel_size_A: Sizes = None,
    shape: Shapes = None,
) -> list[Coordinates]:
    """Read the positions of every tomogram in a file, one table each, at least one; arguments as `read_coordinates`.

    `tomogram` names the tomogram here only where the file does not.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{file} does not exist: check the path of the coordinates file.")
    handler = _format_of(file)
    try:
        tables = handler.read(file, tomogram, voxel_size_A, shape)
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # a file is what somebody else wrote: libraries raise whatever they like on what they did not expect
        fault = f"{type(error).__name__}: {error}".partition("\n")[0][:100]
        raise UserError(
            f"{file} is not a {handler.endings[0]} file that can be read ({fault}): check or replace it."
        ) from error
    for table in tables:
        require_name(table.tomogram, file, blank=True)  # files are called after it, whatever format it comes from
        require_sense(file, table)
        known_A, known_shape = size_of(voxel_size_A, table.tomogram), shape_of(shape, table.tomogram)
        if table.shape is None and known_A is not None and known_shape is not None:
            # Positions in other voxels than the tomogram's are judged in the tomogram's.
            require_inside(file, table.to_voxel_size(known_A, known_shape))
    return tables


def write_coordinates(
    path: str | os.PathLike[str],
    coordinates: Coordinates | Sequence[Coordinates],
    format: str | Format = "star",
    **settings: Any,
) -> None:
    """Write positions, in the voxels they are in; an existing file is replaced.

    Parameters
    ----------
    path : path
    coordinates : Coordinates, or several of them
        Several tomograms go into one file where the format has a place for their names (STAR).
    format : str or Format
        A name in `FORMATS`: "star" (ours; RELION 4 reads it too), "relion4", "relion5", "coords", "cbox", "dynamo",
        "copick", "imod"; or a format that is set up otherwise.
    settings
        What made the positions, for the file's record.
    """
    handler = _handler(format)
    tables = [coordinates] if isinstance(coordinates, Coordinates) else list(coordinates)
    if not tables:
        raise ValueError("there is no table to write")
    labels = {str(label) for table in tables for label in np.unique(table.label)}
    if handler.holds != "tomograms" and (len(tables) > 1 or (handler.holds == "target" and len(labels) > 1)):
        place = "one tomogram" if handler.holds == "tomogram" else "one target in one tomogram"
        raise UserError(
            f"a {handler.endings[0]} file has a place for the positions of {place} only: write one file for each, "
            "or choose the format star."
        )
    file = Path(path)
    with atomic_path(file) as temporary:
        beside = handler.write(temporary, tables, provenance(**settings))
    for ending, text in beside.items():
        with atomic_path(file.with_name(file.stem + ending)) as temporary:
            temporary.write_text(text, encoding="utf-8")


def write_folder(
    folder: str | os.PathLike[str],
    tables: Sequence[Coordinates],
    format: str | Format,
    suffix: str = "",
    **settings: Any,
) -> list[Path]:
    """Write every tomogram's positions into a folder, in as many files as the format asks for; returns those files.

    Which they are, and what is left out, says `files_in_folder`.
    """
    parts = files_in_folder(folder, tables, format, suffix)
    for file, part in parts.items():
        write_coordinates(file, part, format, **settings)
    return list(parts)


def files_in_folder(
    folder: str | os.PathLike[str], tables: Sequence[Coordinates], format: str | Format, suffix: str = ""
) -> dict[Path, Coordinates]:
    """The files that hold every tomogram's positions in a folder, and what stands in each.

    A file is called TOMOGRAM + suffix + ending; where the format has a place for one target only and there are several,
    TOMOGRAM_TARGET + suffix + ending; copick's stand as in a folder ExperimentRuns. What a person rejected is left out
    where only our own format could say so. UserError where two would be called alike.
    """
    handler = _handler(format)
    labels = sorted({str(label) for table in tables for label in np.unique(table.label)})
    parts: dict[Path, tuple[str, Coordinates]] = {}
    for table in tables:
        require_name(table.tomogram, folder, blank=True)
        if table.accepted is not None and format != "star":
            table = table.select(table.accepted != REJECTED)
        by_label = table.by_label() if handler.holds == "target" and len(table) else {"": table}
        for label, part in by_label.items():
            name = f"{table.tomogram}_{label}" if label and len(labels) > 1 else table.tomogram
            file = Path(folder, re.sub(r"[/\s]+", "-", name) + suffix + handler.endings[0])
            if format == "copick":
                file = Path(folder) / picks_path(table.tomogram, label)
            if file in parts:
                # Blanks and the like become dashes in names of files.
                raise UserError(f"{file} would hold both {parts[file][0]} and {name}: give one of them another name.")
            parts[file] = name, part
    return {file: part for file, (_, part) in parts.items()}


def _handler(format: str | Format) -> Format:
    if not isinstance(format, str):
        return format
    if format not in FORMATS:
        raise UserError(f"there is no coordinate format {format}: choose one of {', '.join(FORMATS)}.")
    return FORMATS[format]


def _format_of(file: Path) -> Format:
    for handler in FORMATS.values():
        if file.name.lower().endswith(handler.endings):
            return handler
    raise UserError(f"{file} is not a coordinates file that can be read: give one that ends in {', '.join(ENDINGS)}.")
