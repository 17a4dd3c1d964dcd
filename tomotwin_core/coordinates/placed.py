"""Positions in the voxels of the tomograms they lie in: what a file does not say, its tomogram does.

Every command that takes positions together with tomograms reads them here, each table with the name, voxel size and shape
of its own tomogram.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from tomotwin_core.coordinates.files import read_all_coordinates
from tomotwin_core.coordinates.plausible import require_inside
from tomotwin_core.coordinates.table import Coordinates, Shapes, Sizes
from tomotwin_core.errors import UserError
from tomotwin_core.remarks import remark


class Place(Protocol):
    """A tomogram, as far as positions need one."""

    @property
    def name(self) -> str: ...

    @property
    def voxel_size_A(self) -> float: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...


PlaceT = TypeVar("PlaceT", bound=Place)


def placed_coordinates(
    path: str | os.PathLike[str],
    tomograms: Iterable[PlaceT],
    voxel_size_A: float | None = None,
    by_number: bool = False,
) -> list[tuple[PlaceT | None, Coordinates]]:
    """The tables of a file, each in the voxels of its tomogram and with this one; None beside those in other tomograms.

    A file that names no tomogram is that of the only one, or of the one after which it is called (TS_01_picks.coords), the
    longest name first. voxel_size_A : of the file's positions, where neither it nor the tomogram says it. by_number : where
    there is one tomogram and the file has one, these are the same, whatever another program calls it.

    Raises UserError as `read_all_coordinates`.
    """
    file = Path(path)
    known = {tomogram.name: tomogram for tomogram in tomograms}
    only = next(iter(known.values())) if len(known) == 1 else None
    meant = only.name if only else max((name for name in known if name in file.name), key=len, default=None)
    sizes: Sizes = voxel_size_A
    shapes: Shapes = None
    if voxel_size_A is None:
        sizes = only.voxel_size_A if only else {name: t.voxel_size_A for name, t in known.items()}
        shapes = only.shape if only else {name: t.shape for name, t in known.items()}
    tables = read_all_coordinates(file, meant, sizes, shapes)
    found: list[tuple[PlaceT | None, Coordinates]] = []
    for table in tables:
        tomogram = only if only and by_number and len(tables) == 1 else known.get(table.tomogram)
        if tomogram is None:
            found.append((None, table))
            continue
        if voxel_size_A is not None:
            _tell_other_size(file, table, voxel_size_A)
        table = table.to_voxel_size(tomogram.voxel_size_A, tomogram.shape)
        if voxel_size_A is not None:
            require_inside(file, table)
        found.append((tomogram, table))
    return found


def _tell_other_size(file: Path, table: Coordinates, voxel_size_A: float) -> None:
    if abs(table.voxel_size_A - voxel_size_A) > 1e-3 * voxel_size_A:
        remark(
            f"{file} says that its positions in {table.tomogram} are in voxels of {table.voxel_size_A:g} A, which counts: the "
            f"{voxel_size_A:g} A given are passed over."
        )


def tables_in(
    path: str | os.PathLike[str], tomograms: Iterable[Place], voxel_size_A: float | None = None, by_number: bool = False
) -> list[Coordinates]:
    """The tables of `placed_coordinates`; a `UserError` where one is in none of the tomograms."""
    given = list(tomograms)
    found = []
    for tomogram, table in placed_coordinates(path, given, voxel_size_A, by_number):
        if tomogram is None:
            raise UserError(
                f"{path} has positions in {table.tomogram}, which none of the tomograms given is called "
                f"({', '.join(t.name for t in given)}): give it too."
            )
        found.append(table)
    return found
