"""Picks against truth: matching, scores, pictures, and a baseline to compare with.

    matching.py   which picks are right: one-to-one, as many as can be
    rules.py      when a pick is right: by distance, or by boxes that overlap
    scores.py     `evaluate`: precision, recall and F1 per species, tables of them
    details.py    behind the scores: each tomogram, every threshold, every single pick
    plots.py      precision against recall, F1 against the threshold, F1 of each tomogram
    blobs.py      a difference-of-Gaussians blob finder, the baseline of the benchmarks
    template_matching.py   locally normalised correlation with the exact structure, the baseline that knows its target
    resolution.py   shell correlation of averages with the true density
    pictures.py   picks on tomogram slices, beside the truth

    scores = evaluate(read_coordinates("TS_01_picks.star"), read_coordinates("TS_01_truth.star"))
    print(format_table(scores))

`pictures`, `plots` and `template_matching` are imported by their own names: matplotlib takes a second to load, and matching uses
the rooms that use this one.
"""

from tomotwin_core.evaluation.blobs import find_blobs
from tomotwin_core.evaluation.matching import box_iou, match, match_boxes, rightness_in_order
from tomotwin_core.evaluation.rules import Rule
from tomotwin_core.evaluation.scores import (
    SpeciesScore,
    compare,
    evaluate,
    format_table,
    median_f1,
    recall_by_number,
    scored,
    tolerance_A,
    write_csv,
)

__all__ = [
    "Rule",
    "SpeciesScore",
    "box_iou",
    "compare",
    "evaluate",
    "find_blobs",
    "format_table",
    "match",
    "match_boxes",
    "median_f1",
    "recall_by_number",
    "rightness_in_order",
    "scored",
    "tolerance_A",
    "write_csv",
]
