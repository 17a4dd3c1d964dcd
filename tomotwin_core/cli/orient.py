"""Orient picks: how each particle lies, in DIR/TOMOGRAM_oriented.star.

At each pick the molecule is compared with the tomogram in all orientations and within a short way of the pick, both imaged
alike: --project, files beside a tomogram that are called as it is, or --tilt-min ... --defocus say how the tomograms were
taken. Written are the picks with orientations, centres between voxels, and tomotwinCorrelation: the correlation of
molecule and tomogram there, low where there is no such molecule.
A correlation is named that right picks pass: well above what the same search finds at places where nothing was picked, and
at least half of what the best picks reach.

A reference is a map (molecule bright), a structure, library:ID, pdb:ID or emdb:ID; NAME=SOURCE where the picks have
several targets. Picks of targets without one are left out. What an earlier call has finished with the same settings is
kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tomotwin_core.cli.options import (
    acquisition_of,
    add_acquisition,
    add_contrast,
    add_device,
    add_seed,
    add_voxel_size,
    use_device,
    use_seed,
)
from tomotwin_core.cli.project import acquisition_for

if TYPE_CHECKING:
    from tomotwin_core.coordinates import Coordinates
    from tomotwin_core.simulation.acquisition import Acquisition
    from tomotwin_core.structures import Density
    from tomotwin_core.subtomograms.orienting import OrientingSettings
    from tomotwin_core.tomogram import TomogramSource

HELP = "find how each picked particle lies"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picks", nargs="+", type=Path, metavar="PICKS.star", help="positions, of any format read")
    parser.add_argument("--tomograms", nargs="+", type=Path, required=True, metavar="TOMOGRAM")
    parser.add_argument(
        "--reference", action="append", required=True, metavar="[NAME=]SOURCE", help="the molecule; again for more"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for TOMOGRAM_oriented.star")
    parser.add_argument(
        "--low-pass", type=float, default=30.0, metavar="A", help="use nothing finer of the reference (default: 30)"
    )
    parser.add_argument(
        "--step", type=float, default=15.0, metavar="DEG", help="of the search over all orientations (default: 15)"
    )
    parser.add_argument(
        "--finest", type=float, default=2.0, metavar="DEG", help="of its refinement, at most (default: 2)"
    )
    parser.add_argument(
        "--shift", type=float, default=25.0, metavar="A", help="how far a centre may move (default: 25)"
    )
    parser.add_argument(
        "--background",
        type=int,
        default=20,
        metavar="N",
        help="places of nothing that are searched too in each tomogram (default: 20)",
    )
    parser.add_argument("--summary", type=Path, metavar="FILE.csv", help="picks and correlations as a table")
    add_voxel_size(parser, "tomograms")
    add_contrast(parser)
    parser.add_argument(
        "--reference-contrast",
        choices=("dark", "bright"),
        default="bright",
        help="of the molecule in reference maps (default: bright)",
    )
    add_seed(parser)
    add_acquisition(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    import csv

    from tomotwin_core.coordinates import tables_in
    from tomotwin_core.errors import UserError
    from tomotwin_core.files import atomic_path
    from tomotwin_core.locks import alone_at
    from tomotwin_core.structures import load_density
    from tomotwin_core.subtomograms.orienting import OrientingSettings
    from tomotwin_core.tomogram import open_tomogram

    settings = OrientingSettings(options.step, options.finest, options.shift, options.low_pass, options.contrast)
    acquisition_of(options)  # what cannot be is told before anything is read
    device, seed = use_device(options), use_seed(options)
    if options.background < 0:
        raise UserError(f"--background {options.background}: give 0 for none, or a number of places")
    tomograms = {t.name: t for t in (open_tomogram(path, options.voxel_size) for path in options.tomograms)}
    tables = [table for path in options.picks for table in tables_in(path, tomograms.values())]
    densities = {
        name: load_density(source, dark_map=options.reference_contrast == "dark")
        for name, source in named_references(options.reference, tables).items()
    }
    taken = {name: acquisition_for(options, tomograms[name]) for name in sorted({t.tomogram for t in tables})}
    rows: list[dict[str, object]] = []
    for table in sorted(tables, key=lambda t: t.tomogram):
        name = table.tomogram
        path = options.out / f"{name}_oriented.star"
        with alone_at(path):
            rows += _one(path, tomograms[name], table, densities, taken[name], settings, seed, device, options)
    if options.summary:
        with atomic_path(options.summary) as temporary, open(temporary, "w", newline="") as file:
            names = ["tomogram", "target", "picks", "median", "background", "suggested"]
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        print(options.summary)


def named_references(references: Sequence[str], tables: Sequence[Coordinates]) -> dict[str, str]:
    """The source by target. One without a name serves the picks' only target, whatever it is called."""
    from tomotwin_core.errors import UserError

    labels = sorted({str(label) for table in tables for label in table.label})
    named: dict[str, str] = {}
    for text in references:
        name, equals, source = text.partition("=")
        if not equals or Path(text).exists():
            if len(references) > 1 or len(labels) > 1:
                raise UserError(f"--reference {text}: the picks are of {', '.join(labels)}; write NAME={text}")
            name, source = (labels or [""])[0], text
        if name not in labels:
            raise UserError(f"--reference {text}: there are no picks of {name}, but of {', '.join(labels)}")
        named[name] = source
    return named


def _one(
    path: Path,
    source: TomogramSource,
    picks: Coordinates,
    densities: dict[str, Density],
    acquisition: Acquisition,
    settings: OrientingSettings,
    seed: int,
    device: str,
    options: argparse.Namespace,
) -> list[dict[str, object]]:
    """Orient all picks of a tomogram, write them to `path`, and say what was found."""
    from dataclasses import asdict

    import numpy as np

    from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
    from tomotwin_core.files import fingerprint
    from tomotwin_core.subtomograms.orienting import orient_with_background

    table_path = path.with_suffix(".json")
    made_of = fingerprint(
        tomogram={"voxel_size_A": source.voxel_size_A, "modified": source.path.stat().st_mtime},
        picks=picks.xyz.tobytes() + "".join(map(str, picks.label)).encode() + f"{picks.voxel_size_A:g}".encode(),
        references={name: [density.mass_kDa, density.diameter_A] for name, density in densities.items()},
        acquisition=asdict(acquisition),
        orienting=asdict(settings),
        background=[options.background, seed],
    )
    if path.is_file() and made_of in path.read_text(errors="replace"):
        print(f"{path}: oriented already with these settings")
        return _rows(read_coordinates(path), _background(table_path))
    parts, places, background = [], [], {}
    for label, own in picks.by_label().items():
        if label in densities:
            found, nothing = orient_with_background(
                source, own, densities[label], acquisition, settings, options.background, seed, device, avoid=picks
            )
            parts.append(found)
            places.append(np.flatnonzero(picks.label == label))
            background[label] = [float(value) for value in nothing]
    left_out = len(picks) - sum(map(len, parts))
    oriented = Coordinates.concatenate(parts) if parts else _none_of(picks, source)
    if parts:  # in the order in which they came
        oriented = oriented.select(np.argsort(np.concatenate(places)))
    _write_background(table_path, background)
    settings_record = {
        "orienting": asdict(settings),
        "acquisition": asdict(acquisition),
        "references": options.reference,
    }
    write_coordinates(path, oriented, made_of=made_of, **settings_record)
    rows = _rows(oriented, background)
    told = "; ".join(map(_told, rows))
    print(f"{path}: {told or 'no picks'}" + (f"; {left_out} picks of other targets left out" if left_out else ""))
    return rows


def _told(row: dict[str, object]) -> str:
    nothing = f", {row['background']} where there is nothing" if row["background"] != "" else ""
    named = f"{row['target'] or 'picks'} {row['picks']}, correlation {row['median']} (median){nothing}"
    return f"{named}, right ones above about {row['suggested']}"


def _none_of(picks: Coordinates, source: TomogramSource) -> Coordinates:
    """A table of no positions, which has all columns all the same."""
    from dataclasses import replace

    import numpy as np

    none = picks.select(np.zeros(len(picks), bool)).to_voxel_size(source.voxel_size_A, source.shape)
    return replace(none, rotation=np.empty((0, 3, 3)), correlation=np.empty(0, np.float32))


def _background(path: Path) -> dict[str, list[float]]:
    import json

    return json.loads(path.read_text()) if path.is_file() else {}


def _write_background(path: Path, background: dict[str, list[float]]) -> None:
    import json

    from tomotwin_core.files import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(background) + "\n")


def _rows(oriented: Coordinates, background: dict[str, list[float]]) -> list[dict[str, object]]:
    import numpy as np

    from tomotwin_core.subtomograms.orienting import suggested_correlation

    rows = []
    for label, own in oriented.by_label().items():
        assert own.correlation is not None
        nothing = background.get(label, [])
        rows.append(
            {
                "tomogram": oriented.tomogram,
                "target": label,
                "picks": len(own),
                "median": round(float(np.median(own.correlation)), 3),
                "background": round(float(np.median(nothing)), 3) if nothing else "",
                "suggested": round(suggested_correlation(nothing, own.correlation), 3),
            }
        )
    return rows
