"""A session as a STAR file, and taken up again from one.

    data_tomotwin              what made the file (JSON)
    data_tomotwin_tomograms    name, voxel size and size of each tomogram
    data_particles             the picks that stay: what RELION, `tomotwin` and Scipion read
    data_tomotwin_thresholds   lowest score and range of diameters (A) by tomogram and target
    data_tomotwin_decisions    what was accepted (1) or rejected (0) by hand: examples and counter-examples. They are kept
                               apart, so that no other software takes what was rejected for a pick

Applied to candidates, of the same run or of another one, thresholds are joined by the names of tomogram and target. A
tomogram that the file does not know gets the median of its target's thresholds, so that what was found on a few serves
for a hundred. A decision holds for the nearest candidate of its target within a quarter of the diameter.
"""

import json
from typing import Any, Dict, List, NamedTuple, Union

import numpy as np

from .session import UNDECIDED, PicksSession
from .star import Row, Table, read_table, write_tables

_CORNER = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
_THRESHOLDS = ["tomotwinScoreMin", "tomotwinDiameterMinAngst", "tomotwinDiameterMaxAngst"]


class Applied(NamedTuple):
    """What a file has done: decisions that found their pick, and those that did not."""

    decisions: int
    without_pick: int


def write_session(path: str, session: PicksSession, made_by: Dict[str, Any]) -> None:
    """Write the picks that stay, the thresholds and the decisions; an existing file is replaced."""
    made = json.dumps(made_by, default=str).replace("'", "\\u0027")  # the value stands between single quotes
    sizes = ["tomotwinTomogramSizeZ", "tomotwinTomogramSizeY", "tomotwinTomogramSizeX"]
    thresholds = [
        [tomogram.name, target, _exact(session.score_min[t, k]), *map(_exact, session.size_range[k])]
        for t, tomogram in enumerate(session.tomograms)
        for k, target in enumerate(session.targets)
    ]
    tables: Dict[str, Union[Table, Row]] = {
        "tomotwin": {"tomotwinProvenance": made},
        "tomotwin_tomograms": (
            ["rlnTomoName", "tomotwinVoxelSizeAngst", *sizes],
            [[item.name, float(item.voxel_size_A), *item.shape] for item in session.tomograms],
        ),
        "particles": _picks(session, session.accepted()),
        "tomotwin_thresholds": (["rlnTomoName", "tomotwinLabel", *_THRESHOLDS], thresholds),
    }
    decided = session.decisions != UNDECIDED
    if decided.any():
        labels, rows = _picks(session, decided)
        states = session.decisions[decided]
        tables["tomotwin_decisions"] = (
            [*labels, "tomotwinAccepted"],
            [[*row, int(state)] for row, state in zip(rows, states)],
        )
    write_tables(path, tables)


def apply_session(path: str, session: PicksSession) -> Applied:
    """Take over thresholds and decisions of an earlier session, as one step for undo.

    Raises
    ------
    ValueError
        When the file is none that `write_session` wrote, in one sentence.
    """
    try:
        thresholds = read_table(path, "tomotwin_thresholds")
        score_min, size_range = _joined_thresholds(thresholds, session)
    except (ValueError, KeyError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{path} was not saved by the picking window ({reason}): give a file that was.") from error
    try:
        decided = read_table(path, "tomotwin_decisions")
    except ValueError:
        decided = []  # nothing was decided by hand
    decisions = np.full_like(session.decisions, UNDECIDED)
    found = sum(_decide(row, session, decisions) for row in decided)
    session.restore(score_min, size_range, decisions)
    return Applied(found, len(decided) - found)


def _picks(session: PicksSession, chosen: np.ndarray) -> Table:
    picks = session.picks
    with_fdr = bool(np.isfinite(picks.fdr).any())
    labels = ["rlnTomoName", *_CORNER, "tomotwinLabel", "tomotwinScore", "tomotwinDiameterAngst"]
    labels += ["tomotwinFDR"] * with_fdr + list(picks.extra)
    rows: List[List[Any]] = []
    for i in np.flatnonzero(chosen):
        row: List[Any] = [session.tomograms[picks.tomogram[i]].name, *map(float, picks.xyz[i])]
        row += [session.targets[picks.target[i]], f"{picks.score[i]:.7g}", f"{picks.diameter_A[i]:.6g}"]
        row += [f"{picks.fdr[i]:.4g}"] * with_fdr
        rows.append(row + [values[i] for values in picks.extra.values()])
    return labels, rows


def _exact(value: float) -> str:
    """A number that comes back as it was: a rounded threshold could lose the pick that it was set to."""
    return repr(float(value))


def _joined_thresholds(rows: List[Row], session: PicksSession) -> Any:
    score_min, size_range = session.score_min.copy(), session.size_range.copy()
    values = {
        (row["rlnTomoName"], row["tomotwinLabel"]): tuple(float(row[label]) for label in _THRESHOLDS) for row in rows
    }
    for k, target in enumerate(session.targets):
        known = [value for (_, label), value in values.items() if label == target and not np.isnan(value[0])]
        if known:
            size_range[k] = known[0][1:]
            median = (float(np.median([value[0] for value in known])),)
            score_min[:, k] = [values.get((tomogram.name, target), median)[0] for tomogram in session.tomograms]
    return score_min, size_range


def _decide(row: Row, session: PicksSession, decisions: np.ndarray) -> bool:
    """Hand a decision to the candidate it was made for; whether there is one."""
    names = [tomogram.name for tomogram in session.tomograms]
    if row["rlnTomoName"] not in names or row["tomotwinLabel"] not in session.targets:
        return False
    tomogram, target = names.index(row["rlnTomoName"]), session.targets.index(row["tomotwinLabel"])
    rows = np.flatnonzero(session.rows(target, tomogram))
    if not len(rows):
        return False
    distance = np.linalg.norm(session.picks.xyz[rows] - [float(row[label]) for label in _CORNER], axis=1)
    nearest = rows[distance.argmin()]
    if distance.min() > max(session.radii_vox(np.array([nearest]))[0] / 2, 1.0):
        return False
    decisions[nearest] = int(row["tomotwinAccepted"])
    return True
