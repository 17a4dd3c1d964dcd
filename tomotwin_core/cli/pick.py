"""Pick: keep the peaks whose score is enough, in DIR/TOMOGRAM_picks.star (or another format).

With --threshold auto each target has its own: the one its reference brings from simulation, else the median of the
tomogram's peaks plus four robust deviations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.cli.options import add_format, require_distinct

HELP = "keep the peaks above the threshold"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("peaks", nargs="+", type=Path, metavar="PEAKS.star", help="from `tomotwin locate`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for TOMOGRAM_picks.star")
    parser.add_argument(
        "--threshold", default="auto", metavar="T", help="a similarity within -1 to 1, or auto (default)"
    )
    parser.add_argument(
        "--references", type=Path, metavar="FILE", help="references file, for the thresholds it proposes"
    )
    add_format(parser)


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.coordinates import read_coordinates, write_folder
    from tomotwin_core.picking import load_references, pick

    threshold = None if options.threshold == "auto" else _number(options.threshold)
    calibrated = (
        {t.name: t.threshold for t in load_references(options.references).targets} if options.references else {}
    )
    tables = [read_coordinates(path) for path in options.peaks]
    require_distinct([t.tomogram for t in tables], "peaks files")
    for peaks in tables:
        picks, used = pick(peaks, threshold, calibrated)
        written = write_folder(options.out, [picks], options.format, "_picks", thresholds=used)
        counts = ", ".join(
            f"{label} {int((picks.label == label).sum())} at {value:.3f}" for label, value in used.items()
        )
        print(f"{', '.join(map(str, written))}: {len(picks)} picks ({counts or 'no peaks'})")


def _number(text: str) -> float:
    from tomotwin_core.errors import UserError

    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--threshold {text}: give a number within -1 to 1, or auto") from error
