"""Extract subtomograms at picks, for averaging and classification in RELION 3.

Writes DIR/particles.star, the boxes in DIR/TOMOGRAM/, protein bright, and the missing wedge. Orientations come along where
the picks have them (`tomotwin orient`). Then, called in DIR:

  relion_reconstruct --i particles.star --o average.mrc --ctf --3d_rot

The wedge is that of the tilts: of --project, of files beside a tomogram that are called as it is, or --tilt-min, --tilt-max.
Picks that `tomotwin view` has rejected are left out, and those whose particle reaches beyond the tomogram.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomotwin_core.cli.options import add_contrast, add_project, add_tilt_range, add_voltage, add_voxel_size
from tomotwin_core.cli.project import given_of, series_of

if TYPE_CHECKING:
    from tomotwin_core.coordinates import Coordinates
    from tomotwin_core.subtomograms.cutting import CutSettings
    from tomotwin_core.tomogram import TomogramSource

HELP = "cut out subtomograms at picks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picks", nargs="+", type=Path, metavar="PICKS.star", help="positions, of any format read")
    parser.add_argument("--tomograms", nargs="+", type=Path, required=True, metavar="TOMOGRAM")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the subtomograms")
    parser.add_argument("--box", type=int, required=True, metavar="N", help="edge of the boxes in voxels, even")
    parser.add_argument("--target", metavar="NAME", help="which, where the picks are of several")
    parser.add_argument(
        "--min-correlation", type=float, metavar="C", help="leave out picks that `tomotwin orient` found to agree less"
    )
    parser.add_argument("--diameter", type=float, metavar="A", help="of the particle, where the picks do not say it")
    parser.add_argument("--keep-contrast", action="store_true", help="do not turn protein bright")
    parser.add_argument(
        "--no-normalising", action="store_true", help="do not bring the background to mean 0, deviation 1"
    )
    parser.add_argument(
        "--centre", action="store_true", help="shift boxes by parts of a voxel, so that no shifts are left in the table"
    )
    add_project(parser)
    add_tilt_range(parser)
    add_voltage(parser)
    add_voxel_size(parser, "tomograms")
    add_contrast(parser)


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.coordinates import Coordinates, tables_in
    from tomotwin_core.errors import UserError
    from tomotwin_core.subtomograms.cutting import PARTICLES_FILE, CutSettings, cut
    from tomotwin_core.tomogram import open_tomogram

    settings = CutSettings(
        options.box,
        options.tilt_min,
        options.tilt_max,
        invert=options.contrast == "dark" and not options.keep_contrast,
        normalise=not options.no_normalising,
        centre=options.centre,
        voltage_kV=options.voltage,
    )
    tomograms = {t.name: t for t in (open_tomogram(path, options.voxel_size) for path in options.tomograms)}
    by_name: dict[str, list[Coordinates]] = {}
    for path in options.picks:
        for table in tables_in(path, tomograms.values()):
            by_name.setdefault(table.tomogram, []).append(table)
    tables = {name: Coordinates.concatenate(parts) for name, parts in sorted(by_name.items())}
    labels = sorted({str(label) for table in tables.values() for label in table.label})
    if options.target is None and len(labels) > 1:
        raise UserError(f"the picks are of {', '.join(labels)}: name one of them with --target")
    if options.target is not None and options.target not in labels:
        raise UserError(f"--target {options.target}: there are no picks of it, but of {', '.join(labels)}")
    pairs = [(tomograms[name], _chosen(table, options)) for name, table in tables.items()]
    ranges, settings = _taken([source for source, _ in pairs], settings, options)
    done = cut(pairs, options.out, settings, ranges, picks=options.picks, box=options.box)
    left_out = f"; {done.left_out} reach beyond the tomogram and are left out" if done.left_out else ""
    print(f"{options.out / PARTICLES_FILE}: {done.written} subtomograms{left_out}")


def _taken(
    tomograms: Sequence[TomogramSource], settings: CutSettings, options: argparse.Namespace
) -> tuple[dict[str, tuple[float, float]], CutSettings]:
    """The range of each tomogram's tilts, and the settings with the microscope, as far as projects know them and options
    do not say otherwise."""
    from dataclasses import replace

    from tomotwin_core.errors import UserError

    given = given_of(options)
    ranges: dict[str, tuple[float, float]] = {}
    known: dict[str, Any] = {}
    for tomogram in tomograms:
        series = series_of(options, tomogram)
        if series is None:
            continue
        tilts = series.kept(series.tilt_deg)
        ranges[tomogram.name] = (
            options.tilt_min if "tilt_min" in given else tilts[0],
            options.tilt_max if "tilt_max" in given else tilts[-1],
        )
        for name in ("voltage_kV", "cs_mm", "amplitude_contrast"):
            value = getattr(series, name)
            if value is not None and known.setdefault(name, value) != value:
                raise UserError(
                    f"{series.source}: {name} is {value:g}, and {known[name]:g} in the series before it; RELION's table has one, cut them apart"
                )
    if "voltage" in given:
        known["voltage_kV"] = options.voltage
    return ranges, replace(settings, **known)


def _chosen(table: Coordinates, options: argparse.Namespace) -> Coordinates:
    """The picks that are wanted, with a diameter."""
    from dataclasses import replace

    import numpy as np

    from tomotwin_core.coordinates import REJECTED
    from tomotwin_core.errors import UserError

    wanted = np.ones(len(table), bool)
    if options.target is not None:
        wanted &= table.label == options.target
    if table.accepted is not None:
        wanted &= table.accepted != REJECTED
    if options.min_correlation is not None:
        if table.correlation is None:
            raise UserError("--min-correlation: the picks have no correlations; orient them with `tomotwin orient`")
        wanted &= table.correlation >= options.min_correlation
    if options.diameter is not None:
        table = replace(table, diameter_A=np.full(len(table), options.diameter, np.float32))
    return table.select(wanted)
