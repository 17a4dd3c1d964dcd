"""Locate targets: all peaks of similarity with their scores, in DIR/TOMOGRAM_peaks.star (voxels of the original
tomogram)."""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.cli.options import require_distinct

HELP = "find the peaks of similarity"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("embeddings", nargs="+", type=Path, metavar="ZARR", help="embedded tomograms")
    parser.add_argument("--references", type=Path, required=True, metavar="FILE", help="from `tomotwin reference`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for TOMOGRAM_peaks.star")
    parser.add_argument(
        "--min-score", type=float, default=0.2, metavar="S", help="peaks below are not listed (default: 0.2)"
    )
    parser.add_argument(
        "--separation",
        type=float,
        default=0.6,
        metavar="SHARE",
        help="least distance of two picks of one target, as a share of its diameter (default: 0.6)",
    )
    parser.add_argument(
        "--no-competition", action="store_true", help="let targets share a place instead of giving it to the best"
    )


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.coordinates import write_coordinates
    from tomotwin_core.embedding import open_field
    from tomotwin_core.errors import UserError
    from tomotwin_core.picking import LocationSettings, load_references, locate

    if not -1 <= options.min_score <= 1:
        raise UserError(f"--min-score {options.min_score:g}: similarities lie within -1 to 1")
    if not 0 < options.separation <= 2:
        raise UserError(f"--separation {options.separation:g}: give a share of the diameter within 0 to 2")
    references = load_references(options.references)
    settings = LocationSettings(
        min_score=options.min_score, separation=options.separation, competition=not options.no_competition
    )
    fields = [open_field(p) for p in options.embeddings]
    require_distinct([f.tomogram for f in fields], "embeddings")
    for field in fields:
        peaks = locate(field, references, settings)
        path = options.out / f"{field.tomogram}_peaks.star"
        write_coordinates(path, peaks, model_hash=field.model_hash, references=str(options.references))
        print(f"{path}: {len(peaks)} peaks")
