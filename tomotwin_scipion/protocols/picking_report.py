"""What a run of *reference picking* found, as tables in its extra folder and as lines of its summary.

groups.csv    one row for each target, that is each group id of the coordinates
picks.csv     one row for each tomogram and target, as ``tomotwin pick --summary`` wrote them
"""

import csv
import math
import os
from typing import Dict, Iterable, List, NamedTuple

from ..targets import Measured, Target

PICKS_FILE = "picks.csv"
MOST_TOMOGRAMS_SHOWN = 20

Row = Dict[str, str]


class Found(NamedTuple):
    """Picks of one target, or of all: their number, how many of those are expected to be right (NaN where that is not
    known), and the lowest and highest threshold of the tomograms."""

    picks: int
    right: float
    lowest: float
    highest: float

    @property
    def fdr(self) -> float:
        """Share of false picks that is to be expected."""
        return 1 - self.right / self.picks if self.picks else math.nan


def add_up(rows: Iterable[Row]) -> Found:
    """All rows together."""
    rows = list(rows)
    thresholds = [float(row["threshold"]) for row in rows] or [math.nan]
    # Where nothing was picked nothing is false, whether or not rates are known.
    right = sum(float(row["expected_right"]) for row in rows if int(row["picks"]))
    return Found(sum(int(row["picks"]) for row in rows), right, min(thresholds), max(thresholds))


def read_rows(path: str) -> List[Row]:
    """The rows of a table."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: str, rows: List[Row]) -> None:
    """Write rows with equal columns as a table, which may be read meanwhile."""
    with open(path + ".tmp", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    os.replace(path + ".tmp", path)


def group_rows(targets: Iterable[Target], measured: Dict[str, Measured], rows: List[Row]) -> List[Row]:
    """What each group id stands for and what was found of it; `rows` are those of all tomograms."""
    groups = []
    for group, name, source in targets:
        found = add_up(row for row in rows if row["target"] == name)
        groups.append(
            {
                "group_id": str(group),
                "target": name,
                "diameter_A": f"{measured[name].diameter:.0f}",
                "threshold": _range(found),
                "picks": str(found.picks),
                "expected_fdr": f"{found.fdr:.3f}",
                "source": source,
            }
        )
    return groups


def summary_lines(groups: List[Row], rows: List[Row]) -> List[str]:
    """Targets, and then tomograms, with their picks, thresholds and expected rates."""
    lines = ["Group id, target, diameter, threshold, picks, expected FDR:"]
    for group in groups:
        line = "  *{group_id}*  {target},  {diameter_A} Å,  {threshold},  {picks} picks,  ".format(**group)
        lines.append(line + _percent(float(group["expected_fdr"])))
    tomograms: Dict[str, List[Row]] = {}
    for row in rows:
        tomograms.setdefault(row["tomogram"], []).append(row)
    lines.append("Tomogram, picks (of each target), expected FDR:")
    for tomogram, own in list(tomograms.items())[:MOST_TOMOGRAMS_SHOWN]:
        found = add_up(own)
        each = ", ".join(f"{row['target']} {row['picks']}" for row in own)
        lines.append(f"  {tomogram}:  {found.picks} picks ({each}),  {_percent(found.fdr)}")
    if len(tomograms) > MOST_TOMOGRAMS_SHOWN:
        lines.append(
            f"  and {len(tomograms) - MOST_TOMOGRAMS_SHOWN} more, in the file {PICKS_FILE} of the extra folder"
        )
    return lines


def _range(found: Found) -> str:
    if math.isnan(found.lowest):
        return "none"
    low, high = f"{found.lowest:.3f}", f"{found.highest:.3f}"
    return low if low == high else f"{low} to {high}"


def _percent(rate: float) -> str:
    return "FDR not known" if math.isnan(rate) else f"FDR {100 * rate:.0f} %"
