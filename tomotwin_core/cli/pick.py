"""Pick: keep the peaks whose score is enough, in DIR/TOMOGRAM_picks.star (or another format).

With --threshold auto each target has its own in each tomogram: the score at which the expected F1 is highest, judged by the
false-discovery rates that the peaks carry (tomotwinFDR); --fdr 0.1 takes the score at which a tenth of the picks is
expected to be false instead. Where peaks carry no rate, it is the threshold that the reference brings from simulation,
else the median of the tomogram's peaks plus four robust deviations.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tomotwin_core.cli.options import add_format, require_distinct, require_none_failed, told

if TYPE_CHECKING:
    from tomotwin_core.coordinates import Coordinates

HELP = "keep the peaks above the threshold"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("peaks", nargs="+", type=Path, metavar="PEAKS.star", help="from `tomotwin locate`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for TOMOGRAM_picks.star")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--threshold", default="auto", metavar="T", help="a similarity within -1 to 1, or auto (default)"
    )
    chosen.add_argument("--fdr", type=float, metavar="RATE", help="share of the picks that may be false, as 0.1")
    parser.add_argument(
        "--references", type=Path, metavar="FILE", help="references file, for the thresholds it proposes"
    )
    add_format(parser)
    group = parser.add_argument_group("overview")
    group.add_argument(
        "--summary", type=Path, metavar="FILE.csv", help="picks, thresholds and expected rates as a table"
    )
    group.add_argument(
        "--curves",
        type=Path,
        metavar="FILE.csv",
        help="number, expected FDR and expected F1 of the picks at any threshold",
    )
    group.add_argument("--contact-sheet", type=Path, metavar="FILE.jpg", help="picks on a slice of every tomogram")
    group.add_argument(
        "--tomograms", type=Path, nargs="+", default=[], metavar="TOMOGRAM", help="those of the contact sheet"
    )


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.coordinates import files_in_folder, read_coordinates
    from tomotwin_core.errors import UserError
    from tomotwin_core.locks import alone_at_all
    from tomotwin_core.picking import load_references, pick
    from tomotwin_core.picking.overview import summarised, write_curves, write_summary

    threshold = None if options.threshold == "auto" else _number(options.threshold)
    calibrated = (
        {t.name: t.threshold for t in load_references(options.references).targets} if options.references else {}
    )
    tables, failed = [], []
    for path in options.peaks:
        # A file that cannot be read does not stop the others.
        try:
            tables.append(read_coordinates(path))
        except UserError as error:
            failed.append(told(str(path), error, len(options.peaks)))
    tables.sort(key=lambda t: t.tomogram)
    require_distinct([t.tomogram for t in tables], "peaks files")
    sources = _sources(options, [t.tomogram for t in tables])
    picked = [pick(peaks, threshold, calibrated, options.fdr) for peaks in tables]
    files = [files_in_folder(options.out, [picks], options.format, "_picks") for picks, _ in picked]
    with alone_at_all(path for parts in files for path in parts):
        for (picks, used), parts in zip(picked, files, strict=True):
            _write(picks, used, parts, options.format)
    rows = [row for peaks, (picks, used) in zip(tables, picked, strict=True) for row in summarised(peaks, picks, used)]
    if options.summary:
        write_summary(options.summary, rows)
        print(options.summary)
    if options.curves:
        write_curves(options.curves, tables)
        print(options.curves)
    if options.contact_sheet:
        from tomotwin_core.evaluation.contact_sheet import contact_sheet

        contact_sheet([(sources[picks.tomogram], picks) for picks, _ in picked], options.contact_sheet)
        print(options.contact_sheet)
    require_none_failed(failed, len(options.peaks), "picked")


def _write(picks: Coordinates, used: dict[str, float], parts: dict[Path, Coordinates], format: str) -> None:
    from tomotwin_core.coordinates import write_coordinates

    for path, part in parts.items():
        write_coordinates(path, part, format, thresholds=used)
    counts = ", ".join(f"{label} {int((picks.label == label).sum())} at {value:.3f}" for label, value in used.items())
    print(f"{', '.join(map(str, parts))}: {len(picks)} picks ({counts or 'no peaks'})")


def _sources(options: argparse.Namespace, names: list[str]) -> dict[str, Path]:
    """The tomogram of each table, for the contact sheet."""
    from tomotwin_core.errors import UserError
    from tomotwin_core.tomogram import tomogram_name

    if not options.contact_sheet:
        return {}
    if options.contact_sheet.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise UserError(f"--contact-sheet {options.contact_sheet}: give a name that ends in .jpg or .png")
    found = {tomogram_name(path): path for path in options.tomograms}
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"--contact-sheet: the tomogram {missing[0]} is not among --tomograms; give all of them")
    return found


def _number(text: str) -> float:
    from tomotwin_core.errors import UserError

    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--threshold {text}: give a number within -1 to 1, or auto") from error
