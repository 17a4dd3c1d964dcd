"""Evaluate picks against the truth: precision, recall and F1 per species.

A pick is right within half the particle's radius of a true centre (20 A at least), one pick for one particle; --tolerance
is another share of the diameter, and --criterion boxes counts by the TomoTwin paper's rule, boxes that overlap by IoU >
0.6, which the column `box F1` always does. `best F1` is what the best threshold would have given, which only the truth can
tell; give --candidates (the peaks) so that it can be looked for below the one used. --beta 4 adds the F4 of the CZII
challenge, in which a missed particle weighs more than a false pick.
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
    rule = parser.add_argument_group("when a pick is right")
    rule.add_argument(
        "--criterion", choices=("distance", "boxes"), default="distance", help="what decides (default: distance)"
    )
    rule.add_argument(
        "--tolerance",
        type=float,
        default=0.25,
        metavar="SHARE",
        help="largest distance as a share of the diameter, 20 A at least (default: 0.25)",
    )
    rule.add_argument(
        "--min-iou", type=float, default=0.6, metavar="IOU", help="boxes must overlap by more than this (default: 0.6)"
    )
    parser.add_argument(
        "--beta", type=float, metavar="B", help="F-beta beside F1: recall weighs B times as much as precision (CZII: 4)"
    )
    written = parser.add_argument_group("what is written")
    written.add_argument("--out", type=Path, metavar="FILE.csv", help="write the table")
    written.add_argument(
        "--by-tomogram", type=Path, metavar="FILE.csv", help="the table of all tomograms, then of each alone"
    )
    written.add_argument(
        "--curves", type=Path, metavar="FILE.csv", help="precision, recall and F1 of each species at every threshold"
    )
    written.add_argument(
        "--matches", type=Path, metavar="FILE.csv", help="each pick, right or false, and each particle that was missed"
    )
    written.add_argument("--plot", type=Path, metavar="FILE.png", help="the curves, and the F1 of each tomogram")
    written.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="draw picks beside the truth on slices of --tomogram"
    )
    written.add_argument("--tomogram", type=Path, metavar="FILE.mrc", help="for --picture")


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.coordinates import Coordinates, read_all_coordinates
    from tomotwin_core.errors import UserError
    from tomotwin_core.evaluation import Rule, compare, format_table, scored, write_csv
    from tomotwin_core.tomogram import open_tomogram, tomogram_name

    picks = [t for p in options.picks for t in read_all_coordinates(p)]
    truth = [t for p in options.truth for t in read_all_coordinates(p)]
    candidates = [t for p in options.candidates for t in read_all_coordinates(p)] or None
    if (options.picture is None) != (options.tomogram is None):
        raise UserError("--picture and --tomogram: give both or neither")
    if options.tomogram is not None:
        drawn = tomogram_name(options.tomogram)
        for what, tables in (("picks", picks), ("truth", truth)):
            if drawn not in {t.tomogram for t in tables}:
                names = ", ".join(sorted({t.tomogram for t in tables}))
                raise UserError(
                    f"--tomogram {options.tomogram}: there are no {what} of {drawn}, but of {names}; give one of these"
                )
    if options.beta is not None and (not 0.01 <= options.beta <= 100 or options.beta == 1):
        raise UserError(f"--beta {options.beta:g}: give a number within 0.01 to 100; F1 is there in any case")
    rule = Rule(options.criterion == "boxes", options.tolerance, options.min_iou)
    compared = compare(picks, truth, candidates, rule=rule)
    scores = scored(compared)
    print(format_table(scores, options.beta))
    if options.out:
        write_csv(options.out, scores, options.beta)
    if options.by_tomogram or options.curves or options.matches or options.plot:
        from tomotwin_core.evaluation import details

        single, found = details.scores_by_tomogram(compared), details.curves(compared)
        if options.by_tomogram:
            details.write_scores_by_tomogram(options.by_tomogram, scores, single)
        if options.curves:
            details.write_curves(options.curves, found)
        if options.matches:
            details.write_decisions(options.matches, details.decisions(compared))
        if options.plot:
            from tomotwin_core.evaluation.plots import scores_plot

            scores_plot(options.plot, scores, single, found, f"right: {rule.described()}")
            print(options.plot)
    if options.picture:
        from tomotwin_core.evaluation.pictures import picks_picture

        tomogram = open_tomogram(options.tomogram)
        shown, true = (
            Coordinates.concatenate([t for t in tables if t.tomogram == tomogram.name]) for tables in (picks, truth)
        )
        depth = tomogram.shape[0]
        picks_picture(
            tomogram, shown, options.picture, true, slices=[depth // 3, depth // 2], thickness=7, title=tomogram.name
        )
        print(options.picture)
