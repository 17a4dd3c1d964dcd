"""Picks against truth: matching, scores, pictures, and a baseline to compare with.

    matching.py   which picks are right: one-to-one, as many as can be
    scores.py     `evaluate`: precision, recall and F1 per species, tables of them
    blobs.py      a difference-of-Gaussians blob finder, the baseline of the benchmarks
    pictures.py   picks on tomogram slices, beside the truth

    scores = evaluate(read_coordinates("TS_01_picks.star"), read_coordinates("TS_01_truth.star"))
    print(format_table(scores))

`pictures` is imported by its own name, because matplotlib takes a second to load.
"""

from tomotwin_core.evaluation.blobs import find_blobs
from tomotwin_core.evaluation.matching import box_iou, match, match_boxes, rightness_in_order
from tomotwin_core.evaluation.scores import (
    SpeciesScore,
    evaluate,
    format_table,
    median_f1,
    recall_by_number,
    tolerance_A,
    write_csv,
)

__all__ = [
    "SpeciesScore",
    "box_iou",
    "evaluate",
    "find_blobs",
    "format_table",
    "match",
    "match_boxes",
    "median_f1",
    "recall_by_number",
    "rightness_in_order",
    "tolerance_A",
    "write_csv",
]
