"""Evaluate picks against the truth: precision, recall and F1 per species.

A pick is right within half the particle's radius of a true centre (20 A at least), one pick for one particle; `box
F1` counts by the paper's rule, boxes that overlap by IoU > 0.6. `best F1` is what the best threshold would have
given, which only the truth can tell; give --candidates (the peaks) so that it can be looked for below the one used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "score picks against the truth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picks", nargs="+", type=Path, metavar="PICKS.star")
    parser.add_argument(
        "--truth",
        nargs="+",
        type=Path,
        required=True,
        metavar="TRUTH.star",
        help="one per tomogram, matched by tomogram name",
    )
    parser.add_argument(
        "--candidates",
        nargs="+",
        type=Path,
        default=[],
        metavar="PEAKS.star",
        help="all peaks, for the best possible F1",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write the table")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="draw picks beside the truth on slices of --tomogram"
    )
    parser.add_argument("--tomogram", type=Path, metavar="FILE.mrc", help="for --picture")


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.coordinates import read_all_coordinates
    from tomotwin_core.errors import UserError
    from tomotwin_core.evaluation import evaluate, format_table, write_csv

    picks = [t for p in options.picks for t in read_all_coordinates(p)]
    truth = [t for p in options.truth for t in read_all_coordinates(p)]
    candidates = [t for p in options.candidates for t in read_all_coordinates(p)] or None
    if (options.picture is None) != (options.tomogram is None):
        raise UserError("--picture and --tomogram: give both or neither")
    scores = evaluate(picks, truth, candidates)
    print(format_table(scores))
    if options.out:
        write_csv(options.out, scores)
    if options.picture:
        from tomotwin_core.evaluation.pictures import picks_picture
        from tomotwin_core.tomogram import open_tomogram

        tomogram = open_tomogram(options.tomogram)
        shown = next((p for p in picks if p.tomogram == tomogram.name), picks[0])
        true = next((t for t in truth if t.tomogram == shown.tomogram), truth[0])
        depth = tomogram.shape[0]
        picks_picture(
            tomogram, shown, options.picture, true, slices=[depth // 3, depth // 2], thickness=7, title=tomogram.name
        )
        print(options.picture)
