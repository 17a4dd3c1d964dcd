"""What stands behind the scores: each tomogram alone, every threshold, and every single pick and particle.

All take what `scores.compare` brought together, and so agree with the table of scores by construction: the points of a
curve come from the same ranked list as the best F1, the decisions from the same pairs as the counts.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tomotwin_core.evaluation.scores import Compared, SpeciesScore, ranked, scored, threshold_ends
from tomotwin_core.files import atomic_path

POOLED = "all"
"""In place of a tomogram's name: all of them together."""

Verdict = Literal["right", "false", "missed"]


@dataclass(frozen=True)
class Curve:
    """One species at every threshold, the highest first; arrays (n,). Empty where there are no scores.

    `threshold` is the lowest score kept, `picked` and `right` how many candidates that is and how many of them are right.
    """

    label: str
    n_true: int
    threshold: NDArray[np.float64]
    picked: NDArray[np.int64]
    right: NDArray[np.int64]

    @property
    def precision(self) -> NDArray[np.float64]:
        return self.right / self.picked

    @property
    def recall(self) -> NDArray[np.float64]:
        return self.right / self.n_true if self.n_true else np.full(len(self.right), math.nan)

    @property
    def f1(self) -> NDArray[np.float64]:
        return 2 * self.right / (self.picked + self.n_true)


@dataclass(frozen=True)
class Decision:
    """One pick, right or false, or one particle that was missed.

    `pick` and `true` are rows of the tables of picks and truth of the tomogram, counted from 0, -1 where there is none;
    x, y, z are those of the pick, or of the missed particle, in A from the first voxel's centre. `distance_A` is that of
    the pick to its particle, NaN where it has none.
    """

    tomogram: str
    label: str
    verdict: Verdict
    pick: int
    true: int
    x_A: float
    y_A: float
    z_A: float
    score: float
    distance_A: float


def scores_by_tomogram(compared: Compared) -> list[tuple[str, SpeciesScore]]:
    """The scores of each tomogram alone, tomogram by tomogram, of the species that are in its truth or picks."""
    rows = []
    for name in sorted(compared.truth):
        rows += [(name, score) for score in scored(compared, [name]) if score.n_true or score.n_picked]
    return rows


def curves(compared: Compared) -> list[Curve]:
    """Every species at every threshold, all tomograms together."""
    return [_curve(label, compared) for label in compared.labels]


def decisions(compared: Compared) -> list[Decision]:
    """Every pick and every missed particle of the species that are scored, in the order of the tables."""
    found: list[Decision] = []
    for name in sorted(compared.truth):
        for label in compared.labels:
            found += _decided(name, label, compared)
    return found


def write_scores_by_tomogram(
    path: str | PathLike[str], pooled: Sequence[SpeciesScore], single: Iterable[tuple[str, SpeciesScore]]
) -> None:
    """Write scores as comma-separated values with the tomogram in front: first those of `POOLED`, then each alone."""
    rows = [{"tomogram": POOLED, **asdict(score)} for score in pooled]
    rows += [{"tomogram": name, **asdict(score)} for name, score in single]
    _write(path, ["tomogram", *(field.name for field in fields(SpeciesScore))], rows)


def write_curves(path: str | PathLike[str], found: Iterable[Curve]) -> None:
    """Write curves as comma-separated values, one threshold of one species a line."""
    names = ("threshold", "picked", "right", "precision", "recall", "f1")
    rows = [
        {"label": curve.label, **dict(zip(names, values, strict=True))}
        for curve in found
        for values in zip(*(getattr(curve, name).tolist() for name in names), strict=True)
    ]
    _write(path, ["label", *names], rows)


def write_decisions(path: str | PathLike[str], found: Iterable[Decision]) -> None:
    """Write decisions as comma-separated values, one a line."""
    _write(path, [field.name for field in fields(Decision)], [asdict(decision) for decision in found])


def _curve(label: str, compared: Compared) -> Curve:
    gain, score = ranked(label, compared)
    n_true = sum(int((table.label == label).sum()) for table in compared.truth.values())
    if np.isnan(score).any():
        gain, score = gain[:0], score[:0]
    ends = threshold_ends(score)
    right = np.cumsum(gain.astype(np.int64))[ends]
    return Curve(label, n_true, score[ends], ends.astype(np.int64) + 1, right)


def _decided(tomogram: str, label: str, compared: Compared) -> list[Decision]:
    picks, truth = compared.picks[tomogram], compared.truth[tomogram]
    rows, true_rows = np.flatnonzero(picks.label == label), np.flatnonzero(truth.label == label)
    places = picks.xyz[rows] * picks.voxel_size_A
    true_places = truth.xyz[true_rows] * truth.voxel_size_A
    i, j = compared.rule.match(places, true_places, compared.diameter_A(label))
    partner = dict(zip(i.tolist(), j.tolist(), strict=True))
    found = []
    for index, row in enumerate(rows.tolist()):
        k = partner.get(index)
        distance = math.nan if k is None else float(np.linalg.norm(places[index] - true_places[k]))
        verdict: Verdict = "false" if k is None else "right"
        true = -1 if k is None else int(true_rows[k])
        x, y, z = places[index].tolist()
        found.append(Decision(tomogram, label, verdict, row, true, x, y, z, float(picks.score[row]), distance))
    for k in sorted(set(range(len(true_rows))) - set(partner.values())):
        x, y, z = true_places[k].tolist()
        found.append(Decision(tomogram, label, "missed", -1, int(true_rows[k]), x, y, z, math.nan, math.nan))
    return found


def _write(path: str | PathLike[str], columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})
