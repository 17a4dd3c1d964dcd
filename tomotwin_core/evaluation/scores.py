"""Precision, recall and F1 of picks, species by species.

A pick is right when it lies within half the particle's radius of a true centre, 20 A at least (2 voxels at the model's
10 A), each true particle counting once. The TomoTwin paper's criterion, boxes that overlap with an IoU above 0.6, is
reported beside it. Several tomograms are pooled: their counts are added before anything is divided.

Two kinds of F1 stand in separate columns and are never mixed: `f1` is that of the picks as they are, at the threshold
the software chose; `best_f1` is the highest that any threshold could have given, which only the truth can tell. It is an
upper bound and not a result.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from os import PathLike

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.evaluation.matching import match_boxes, rightness_in_order
from tomotwin_core.evaluation.rules import Rule
from tomotwin_core.files import atomic_path


@dataclass(frozen=True)
class SpeciesScore:
    """How well one species was picked. NaN stands for what cannot be said.

    Attributes
    ----------
    label : str
    n_true, n_picked, n_right : int
        Particles there are, picks made, picks that are right.
    precision, recall, f1 : float
        Of the picks as they are.
    box_precision, box_recall, box_f1 : float
        The same by the paper's criterion; NaN where the diameter is unknown.
    median_distance_A : float
        Between right picks and their particles.
    best_f1, best_threshold : float
        The best possible F1 over all score thresholds, and the lowest score kept there; NaN without scores.
    average_precision : float
        Mean over all true particles of the precision at the pick that finds them, 0 where none does; NaN without scores.
    tolerance_A, diameter_A : float
        The distance up to which a pick counts as right (NaN where boxes decide), and the diameter it comes from.
    """

    label: str
    n_true: int
    n_picked: int
    n_right: int
    precision: float
    recall: float
    f1: float
    box_precision: float
    box_recall: float
    box_f1: float
    median_distance_A: float
    best_f1: float
    best_threshold: float
    average_precision: float
    tolerance_A: float
    diameter_A: float

    @property
    def n_wrong(self) -> int:
        """False positives."""
        return self.n_picked - self.n_right

    @property
    def n_missed(self) -> int:
        """False negatives."""
        return self.n_true - self.n_right

    def f_beta(self, beta: float) -> float:
        """F of the picks as they are, with recall weighing beta times as much as precision (van Rijsbergen 1979, F1 at 1):
        (1 + beta^2) right / (picked + beta^2 true); NaN where there is neither a pick nor a particle."""
        weighed = self.n_picked + beta**2 * self.n_true
        return (1 + beta**2) * self.n_right / weighed if weighed else math.nan


@dataclass(frozen=True)
class Compared:
    """Picks, truth and candidates that go together: tables by tomogram, labels to score, and the rule."""

    picks: dict[str, Coordinates]
    truth: dict[str, Coordinates]
    candidates: dict[str, Coordinates]
    labels: list[str]
    rule: Rule

    def diameter_A(self, label: str) -> float:
        """Median diameter in the truth, or where it has none in the picks; NaN where neither has one."""
        in_truth = _diameter(label, self.truth)
        return _diameter(label, self.picks) if math.isnan(in_truth) else in_truth


Tables = Coordinates | Sequence[Coordinates]


def evaluate(
    picks: Tables,
    truth: Tables,
    candidates: Tables | None = None,
    labels: Sequence[str] | None = None,
    rule: Rule | None = None,
) -> list[SpeciesScore]:
    """Score picks against the truth, one row per species, in alphabetical order; arguments as `compare`."""
    return scored(compare(picks, truth, candidates, labels, rule))


def compare(
    picks: Tables,
    truth: Tables,
    candidates: Tables | None = None,
    labels: Sequence[str] | None = None,
    rule: Rule | None = None,
) -> Compared:
    """Bring together what is to be compared.

    Parameters
    ----------
    picks, truth : Coordinates, or one per tomogram
        In any voxel sizes; matched by the tomogram's name, which must be the same tomograms in both.
    candidates : Coordinates, optional
        All peaks with scores before the threshold was applied, for the best possible F1; the picks by default, above
        whose threshold only it is then looked for.
    labels : sequence of str, optional
        The species to score. By default all that the truth or the picks name: a species that is there and was never
        picked counts as missed.
    rule : Rule, optional
        When a pick is right.

    Raises
    ------
    UserError
        When tomograms or species of the picks and the truth do not go together.
    """
    found, true = _by_tomogram(picks), _by_tomogram(truth)
    searched = found if candidates is None else _by_tomogram(candidates)
    _require_same_tomograms(found, true, "picks")
    _require_same_tomograms(searched, true, "candidates")
    found, searched = _named_like(found, true), _named_like(searched, true)
    in_truth, in_picks = _labels(true), _labels(found)
    if in_picks and not in_picks & in_truth:
        raise UserError(
            f"the picks are of {_listed(in_picks)} and the truth is of {_listed(in_truth)}: "
            "give the targets the names they have in the truth."
        )
    wanted = sorted(in_truth | in_picks) if labels is None else list(labels)
    return Compared(found, true, searched, wanted, rule or Rule())


def scored(compared: Compared, tomograms: Sequence[str] | None = None) -> list[SpeciesScore]:
    """One row per species, over all tomograms or over some."""
    names = list(compared.truth) if tomograms is None else tomograms
    return [_score(label, compared, names) for label in compared.labels]


def median_f1(scores: Sequence[SpeciesScore], best: bool = False) -> float:
    """Median over the species that are there at all of `f1`, or of `best_f1`; NaN when there are none."""
    values = [score.best_f1 if best else score.f1 for score in scores if score.n_true]
    return float(np.median(values)) if values else math.nan


def recall_by_number(ranked_xyz: ArrayLike, truth_xyz: ArrayLike, tolerance: float) -> NDArray[np.float64]:
    """Recall after the first, second, ... pick; positions and tolerance in one unit, best pick first."""
    n_true = len(np.asarray(truth_xyz, np.float64).reshape(-1, 3))
    recall: NDArray[np.float64] = np.cumsum(rightness_in_order(ranked_xyz, truth_xyz, tolerance)) / n_true
    return recall


def format_table(scores: Sequence[SpeciesScore], beta: float | None = None) -> str:
    """The scores as a text table with a line of medians; what only the truth can tell stands apart on the right.

    beta : F-beta stands beside F1.
    """
    width = max([len("median F1"), *(len(score.label) for score in scores)])
    named = "" if beta is None else f"  {f'F{beta:g}':>5}"
    head = f"{'species':{width}}   true  picked  right  precision  recall     F1{named}   box F1  |  best F1  at score"
    lines = [head, "-" * len(head)]

    def other(value: float) -> str:
        return "" if beta is None else f"  {_cell(value, 5)}"

    f_beta = [score.f_beta(1 if beta is None else beta) for score in scores]
    for s, f in zip(scores, f_beta, strict=True):
        lines.append(
            f"{s.label:{width}}  {s.n_true:5d}  {s.n_picked:6d}  {s.n_right:5d}  {_cell(s.precision, 9)}"
            f"  {_cell(s.recall, 6)}  {_cell(s.f1, 5)}{other(f)}   {_cell(s.box_f1, 6)}  |  {_cell(s.best_f1, 7)}"
            f"  {_cell(s.best_threshold, 8)}"
        )
    boxes = [score.box_f1 for score in scores if score.n_true and not math.isnan(score.box_f1)]
    box = float(np.median(boxes)) if boxes else math.nan
    gap = " " * len("   true  picked  right  precision  recall")
    there = [f for f, score in zip(f_beta, scores, strict=True) if score.n_true]
    median = other(float(np.median(there)) if there else math.nan)
    medians = f"{_cell(median_f1(scores), 5)}{median}   {_cell(box, 6)}  |  {_cell(median_f1(scores, best=True), 7)}"
    return "\n".join([*lines, lines[1], f"{'median F1':{width}}{gap}  {medians}"])


def write_csv(path: str | PathLike[str], scores: Sequence[SpeciesScore], beta: float | None = None) -> None:
    """Write every attribute of the scores as comma-separated values, one species a line; F-beta in a last column, as f4."""
    more = [] if beta is None else [f"f{beta:g}"]
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*(field.name for field in fields(SpeciesScore)), *more])
        writer.writeheader()
        for score in scores:
            row = asdict(score) | ({} if beta is None else {more[0]: score.f_beta(beta)})
            writer.writerow({name: f"{v:.5g}" if isinstance(v, float) else v for name, v in row.items()})


def tolerance_A(diameter_A: float) -> float:
    """How far from a true centre a pick is right: half the particle's radius, 20 A at least or where it is unknown."""
    return Rule().tolerance_A(diameter_A)


def ranked(
    label: str, compared: Compared, tomograms: Sequence[str] | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """The candidates of one species in all tomograms, or in some: which of them add a match to the better ones of their
    tomogram, and scores, the best first."""
    diameter = compared.diameter_A(label)
    gains, scores = [np.empty(0, np.bool_)], [np.empty(0)]
    for name in compared.truth if tomograms is None else tomograms:
        searched, score = _places(label, compared.candidates[name])
        order = np.argsort(-score, kind="stable")
        true = _places(label, compared.truth[name])[0]
        gains.append(compared.rule.rightness_in_order(searched[order], true, diameter))
        scores.append(score[order])
    gain, value = np.concatenate(gains), np.concatenate(scores)
    order = np.argsort(-value, kind="stable")
    return gain[order], value[order]


def threshold_ends(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Where a ranked list can end: no threshold separates equal scores."""
    ends: NDArray[np.intp] = np.flatnonzero(np.append(scores[1:] != scores[:-1], len(scores) > 0))
    return ends


def _score(label: str, compared: Compared, tomograms: Sequence[str]) -> SpeciesScore:
    diameter, rule = compared.diameter_A(label), compared.rule
    n_true = n_picked = n_right = n_boxes = 0
    distances: list[NDArray[np.float64]] = [np.empty(0)]
    for name in tomograms:
        true, _ = _places(label, compared.truth[name])
        found, _ = _places(label, compared.picks[name])
        n_true, n_picked = n_true + len(true), n_picked + len(found)
        i, j = rule.match(found, true, diameter)
        n_right += len(i)
        distances.append(np.linalg.norm(found[i] - true[j], axis=1))
        if not math.isnan(diameter):
            n_boxes += len(match_boxes(found, true, diameter, rule.min_iou)[0])
    right_distances = np.concatenate(distances)
    precision, recall, f1 = _rates(n_right, n_picked, n_true)
    boxes = _rates(n_boxes, n_picked, n_true) if not math.isnan(diameter) else (math.nan,) * 3
    best_f1, best_threshold, average_precision = _over_thresholds(*ranked(label, compared, tomograms), n_true)
    return SpeciesScore(
        label,
        n_true,
        n_picked,
        n_right,
        precision,
        recall,
        f1,
        *boxes,
        median_distance_A=float(np.median(right_distances)) if len(right_distances) else math.nan,
        best_f1=best_f1,
        best_threshold=best_threshold,
        average_precision=average_precision,
        tolerance_A=math.nan if rule.boxes else rule.tolerance_A(diameter),
        diameter_A=diameter,
    )


def _rates(right: int, picked: int, true: int) -> tuple[float, float, float]:
    """Precision, recall and F1; F1 is 0 where picks or particles are missing, NaN where both are."""
    return (
        right / picked if picked else math.nan,
        right / true if true else math.nan,
        2 * right / (picked + true) if picked + true else math.nan,
    )


def _over_thresholds(gain: NDArray[np.bool_], score: NDArray[np.float64], n_true: int) -> tuple[float, float, float]:
    """The best F1, the lowest score kept there, and the average precision; the candidates ranked."""
    if np.isnan(score).any() or n_true == 0:
        return math.nan, math.nan, math.nan
    if not len(score):
        return 0.0, math.nan, 0.0
    right, picked = np.cumsum(gain), np.arange(1, len(gain) + 1)
    ends = threshold_ends(score)
    f1 = 2 * right[ends] / (picked[ends] + n_true)
    best = int(np.argmax(f1))
    precision_at_finds = (right / picked)[gain]
    return float(f1[best]), float(score[ends[best]]), float(precision_at_finds.sum() / n_true)


def _by_tomogram(tables: Tables) -> dict[str, Coordinates]:
    grouped: dict[str, list[Coordinates]] = {}
    for table in [tables] if isinstance(tables, Coordinates) else tables:
        grouped.setdefault(table.tomogram, []).append(table)
    return {name: Coordinates.concatenate(parts) for name, parts in grouped.items()}


def _require_same_tomograms(found: dict[str, Coordinates], true: dict[str, Coordinates], what: str) -> None:
    without_truth, without_picks = sorted(found.keys() - true.keys()), sorted(true.keys() - found.keys())
    if without_truth:
        raise UserError(f"the {what} of {_listed(without_truth)} have no truth: give the truth of the same tomograms.")
    if without_picks:
        raise UserError(f"the truth of {_listed(without_picks)} has no {what}: give those of the same tomograms.")


def _named_like(tables: dict[str, Coordinates], truth: dict[str, Coordinates]) -> dict[str, Coordinates]:
    """Picks without any label are of the truth's only species, where it has only one."""
    of_truth = _labels(truth)
    if len(of_truth) != 1 or _labels(tables) - {""}:
        return tables
    label = next(iter(of_truth))
    return {
        name: Coordinates.from_arrays(
            t.xyz, t.voxel_size_A, t.tomogram, t.shape, label, t.score, t.diameter_A, t.rotation
        )
        for name, t in tables.items()
    }


def _labels(tables: dict[str, Coordinates]) -> set[str]:
    return {str(label) for table in tables.values() for label in np.unique(table.label)}


def _listed(names: Sequence[str] | set[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


def _places(label: str, table: Coordinates) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (A) and scores of one species."""
    chosen = table.label == label
    return table.xyz[chosen] * table.voxel_size_A, table.score[chosen].astype(np.float64)


def _diameter(label: str, tables: dict[str, Coordinates]) -> float:
    known = np.concatenate([table.diameter_A[table.label == label] for table in tables.values()])
    known = known[np.isfinite(known)]
    return float(np.median(known)) if len(known) else math.nan


def _cell(value: float, width: int) -> str:
    return f"{'-':>{width}}" if math.isnan(value) else f"{value:{width}.2f}"
