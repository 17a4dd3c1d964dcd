"""Convert positions from one format to another: labels, scores, diameters and orientations as far as it has a place.

  tomotwin convert picks/*.star --out picks.tbl --format dynamo             one Dynamo table of all tomograms
  tomotwin convert picks.mod --out . --format relion5 --tomogram TS_01.mrc  what the file does not say, the tomogram does
  tomotwin convert picks/*.star --out my_project/ExperimentRuns --format copick

Formats: star (ours, RELION 4 reads it too), relion4, relion5, coords (x y z), cbox (crYOLO), dynamo (.tbl and .doc),
copick (.json), imod (.mod). Positions come out in the voxels they are in, or, with --tomogram, in those of the tomogram;
--to-voxel-size brings them to any other, such as the tilt series' pixel size, in which RELION 4 counts. RELION 5 counts in A
and knows that size from its tomograms.star; --to-voxel-size writes it into the file too. --project tomograms.star writes
particles.star with the names and the pixel size that RELION 5 has there, and particles_optimisation_set.star, which its jobs
take. Several files of one tomogram become one. Positions that were rejected by hand are left out, save in the format star, which says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tomotwin_core.cli.options import add_format, add_voxel_size

if TYPE_CHECKING:
    from tomotwin_core.coordinates import Coordinates
    from tomotwin_core.coordinates.files import Format
    from tomotwin_core.tomogram import TomogramSource

HELP = "convert positions between file formats"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("positions", nargs="+", type=Path, metavar="IN", help="files of positions")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR_OR_FILE", help="a file, or a folder for several"
    )
    add_format(parser, required=True)
    parser.add_argument(
        "--tomogram",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="the tomograms, for name, size and voxel size where IN does not say them; several are told apart by name",
    )
    add_voxel_size(parser, "the positions in IN")
    parser.add_argument("--to-voxel-size", type=float, metavar="A", help="write the positions in voxels of this size")
    parser.add_argument(
        "--project", type=Path, metavar="tomograms.star", help="of RELION 5, for which --format relion5 is written"
    )
    parser.add_argument("--label", default="", metavar="NAME", help="for positions that have none")


def run(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from tomotwin_core.coordinates import FORMATS, Coordinates, files_in_folder, write_coordinates
    from tomotwin_core.coordinates.star import StarFormat
    from tomotwin_core.errors import UserError
    from tomotwin_core.locks import alone_at_all

    to = options.to_voxel_size
    if to is not None and not 0.1 <= to <= 45:
        raise UserError(f"--to-voxel-size {to:g}: give a voxel size within 0.1 to 45 A")
    tomograms = {t.name: t for t in (_opened(p, options.voxel_size) for p in options.tomogram)}
    by_name: dict[str, list[Coordinates]] = {}
    for path in options.positions:
        for table in _tables(path, tomograms, options.voxel_size):
            by_name.setdefault(table.tomogram, []).append(_labelled(table, options.label))
    tables = [Coordinates.concatenate(parts) for parts in by_name.values()]
    handler, format = FORMATS[options.format], options.format
    if to is not None and isinstance(handler, StarFormat) and handler.centred:
        # RELION 5 counts in A: what is to be in its voxels is the tilt series.
        format = replace(handler, tilt_series_pixel_size_A=to)
    elif to is not None:
        tables = [table.to_voxel_size(to) for table in tables]
    sources = [str(p) for p in options.positions]
    if options.project is not None:
        for path in _into_project(options, tables, format, sources):
            print(path)
        return
    parts: dict[Path, Coordinates | list[Coordinates]] = {options.out: tables}
    if not options.out.name.lower().endswith(handler.endings):
        parts = dict(files_in_folder(options.out, tables, format))
    with alone_at_all(parts):
        for path, part in parts.items():
            write_coordinates(path, part, format, converted_from=sources)
            print(path)
    print(f"{sum(map(len, tables))} positions in {len(tables)} tomogram{'s' * (len(tables) != 1)}")


def _into_project(
    options: argparse.Namespace, tables: Sequence[Coordinates], format: str | Format, sources: list[str]
) -> list[Path]:
    """Particles and optimisation set of a RELION 5 project."""
    from dataclasses import replace

    from tomotwin_core.coordinates import write_coordinates
    from tomotwin_core.coordinates.star import STAR_FORMATS, StarFormat
    from tomotwin_core.errors import UserError
    from tomotwin_core.locks import alone_at_all
    from tomotwin_core.project.export import in_relion_project, write_optimisation_set

    if options.format != "relion5":
        raise UserError(f"--project: goes with --format relion5, not {options.format}; leave it out")
    named, pixel_size_A = in_relion_project(tables, options.project)
    if not isinstance(format, StarFormat):  # --to-voxel-size has set one up otherwise
        format = replace(STAR_FORMATS["relion5"], tilt_series_pixel_size_A=pixel_size_A)
    out = options.out if options.out.name.lower().endswith(".star") else options.out / "particles.star"
    with alone_at_all([out]):
        write_coordinates(out, named, format, converted_from=sources)
        return [out, write_optimisation_set(out, options.project)]


def _opened(path: Path, voxel_size_A: float | None) -> TomogramSource:
    """A tomogram; --voxel-size is that of the positions and helps here only where the header says nothing."""
    from tomotwin_core.errors import UserError
    from tomotwin_core.tomogram import open_tomogram

    try:
        return open_tomogram(path)
    except UserError:
        if voxel_size_A is None:
            raise
        return open_tomogram(path, voxel_size_A)


def _tables(path: Path, tomograms: dict[str, TomogramSource], voxel_size_A: float | None) -> Sequence[Coordinates]:
    """What a file holds, in the voxels of its tomogram where that is given."""
    from tomotwin_core.coordinates import read_all_coordinates, tables_in

    if not tomograms:
        return read_all_coordinates(path, voxel_size_A=voxel_size_A)
    # The one tomogram given may have another name than the file's only tomogram goes by in another program.
    return tables_in(path, tomograms.values(), voxel_size_A, by_number=True)


def _labelled(table: Coordinates, label: str) -> Coordinates:
    from dataclasses import replace

    import numpy as np

    return replace(table, label=np.where(table.label == "", label, table.label))
