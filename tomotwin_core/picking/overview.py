"""What was picked in many tomograms, as tables: one row per tomogram and target, and the curves over the threshold."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.files import atomic_path
from tomotwin_core.picking.discovery import expected_f1

# Of a curve no more points than a plot can show.
_MOST_POINTS = 500


@dataclass(frozen=True)
class Summary:
    """Picks of one target in one tomogram. expected_fdr, expected_right: share of false and number of right ones among
    the picks; expected_recall: share of what is right among all peaks that was picked; NaN where not known."""

    tomogram: str
    target: str
    peaks: int
    picks: int
    threshold: float
    median_score: float
    expected_fdr: float
    expected_right: float
    expected_recall: float


def summarised(peaks: Coordinates, picks: Coordinates, thresholds: dict[str, float]) -> list[Summary]:
    """One row per target of a tomogram."""
    rows = []
    for label, own in peaks.by_label().items():
        kept = picks.select(picks.label == label)
        known = own.fdr is not None and kept.fdr is not None and bool(np.isfinite(own.fdr).all())
        rate = right = recall = float("nan")
        if known:
            assert own.fdr is not None and kept.fdr is not None
            rate = float(kept.fdr.max()) if len(kept) else 0.0
            right = len(kept) * (1 - rate)
            recall = right / max(len(own) * (1 - float(own.fdr.max())), right, 1e-9)
        rows.append(
            Summary(
                peaks.tomogram,
                label,
                len(own),
                len(kept),
                thresholds.get(label, float("nan")),
                float(np.median(kept.score)) if len(kept) else float("nan"),
                rate,
                right,
                recall,
            )
        )
    return rows


def write_summary(path: Path, rows: Sequence[Summary]) -> None:
    """As comma-separated values, one row per tomogram and target."""
    _write(path, [f.name for f in fields(Summary)], [list(asdict(row).values()) for row in rows])


def write_curves(path: Path, tables: Sequence[Coordinates]) -> None:
    """For every target and tomogram the number of picks, the expected share of false ones and the expected F1 at the
    thresholds that make a difference; targets without rates are left out."""
    rows: list[list[object]] = []
    for table in tables:
        for label, own in table.by_label().items():
            if own.fdr is None or not np.isfinite(own.fdr).all():
                continue
            thresholds, f1 = expected_f1(own.score, own.fdr)
            rates = np.sort(own.fdr)
            for i in np.unique(np.linspace(0, len(own) - 1, min(len(own), _MOST_POINTS)).round().astype(int)):
                rows.append([table.tomogram, label, float(thresholds[i]), int(i) + 1, float(rates[i]), float(f1[i])])
    _write(path, ["tomogram", "target", "threshold", "picks", "expected_fdr", "expected_f1"], rows)


def _write(path: Path, head: list[str], rows: Sequence[Sequence[object]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(head)
        writer.writerows([f"{v:.5g}" if isinstance(v, float) else v for v in row] for row in rows)
