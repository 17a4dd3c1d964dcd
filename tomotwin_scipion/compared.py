"""Two sets of coordinates as the tables that ``tomotwin evaluate`` compares, and its verdicts back as coordinates.

What a coordinate is of, its kind, is the name that the run behind it gives to its group id, else ``group_<id>``. The
tables list the coordinates of each tomogram in the order of the set, so that a row number in a verdict is a coordinate.
"""

import csv
import os
import re
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import SetOfCoordinates3D

from tomotwin_view.star import Table, write_tables

from .convert import read_picks
from .enabled import enabled_coordinates, groups_of
from .targets import diameters_by_group, groups_file, read_groups

RIGHT, FALSE, MISSED = "right", "false", "missed"
ONE_KIND = "particle"
"""What everything is where kinds are not told apart."""

Rows = Dict[str, List[int]]
"""By tsId the ids of the coordinates in the order in which they were written."""


class Kinds(NamedTuple):
    """What the group ids of picks and truth stand for: the label in the tables, by group id."""

    picks: Dict[int, str]
    truth: Dict[int, str]

    @property
    def common(self) -> Set[str]:
        return set(self.picks.values()) & set(self.truth.values())


def kind_names(coordinates: SetOfCoordinates3D) -> Dict[int, str]:
    """The kind of each group id that is in the set."""
    names = read_groups(groups_file(coordinates))[0]
    groups = groups_of(coordinates)
    return {group: names.get(group, f"group_{group}") for group in groups}


def parse_pairs(text: str) -> Dict[str, str]:
    """Kinds of the picks and the kinds of the truth they are, from a text such as ``1abc = ribosome, group_2 = 2def``.

    Raises
    ------
    ValueError
        For a part that is not of this form.
    """
    pairs = {}
    for part in re.split(r"[,;\n]+", text or ""):
        if not part.strip():
            continue
        words = [word.strip() for word in part.split("=")]
        if len(words) != 2 or not all(words):
            raise ValueError(f"'{part.strip()}' is no pair: write the kind of the picks = the kind of the truth.")
        pairs[words[0]] = words[1]
    return pairs


def compared_kinds(
    picks: SetOfCoordinates3D, truth: SetOfCoordinates3D, pairs: Optional[Dict[str, str]], together: bool
) -> Kinds:
    """Which kinds of two sets are the same: those of one name, those that `pairs` says, and the only one of each.

    With `together` all are.

    Raises
    ------
    ValueError
        For a name in `pairs` that is none.
    """
    of_picks, of_truth = kind_names(picks), kind_names(truth)
    if together:
        return Kinds(dict.fromkeys(of_picks, ONE_KIND), dict.fromkeys(of_truth, ONE_KIND))
    for pick, true in (pairs or {}).items():
        for name, names, what in ((pick, of_picks, "picks"), (true, of_truth, "truth")):
            if name not in names.values():
                raise ValueError(f"'{name}' is no kind of the {what}, which has {listed(names.values())}.")
    if not pairs and len(set(of_picks.values())) == len(set(of_truth.values())) == 1:
        (only,) = set(of_truth.values())
        return Kinds(dict.fromkeys(of_picks, only), of_truth)
    return Kinds({group: (pairs or {}).get(name, name) for group, name in of_picks.items()}, of_truth)


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    ordered = sorted(set(names))
    return ", ".join(ordered[:6]) + (f" and {len(ordered) - 6} more" if len(ordered) > 6 else "")


def diameters_of(picks: SetOfCoordinates3D, truth: SetOfCoordinates3D, kinds: Kinds) -> Dict[str, float]:
    """The diameter of each label in A: what is known about the truth, or about the picks, or the box size of the truth, or of
    the picks; nothing where there is none."""
    found: Dict[str, float] = {}
    for coordinates, labels in ((truth, kinds.truth), (picks, kinds.picks)):
        measured = diameters_by_group(coordinates)
        for group, label in labels.items():
            if group in measured:
                found.setdefault(label, measured[group])
    for coordinates, labels in ((truth, kinds.truth), (picks, kinds.picks)):
        box = float((coordinates.getBoxSize() or 0) * coordinates.getSamplingRate())
        for label in labels.values():
            if box:
                found.setdefault(label, box)
    return found


def has_scores(coordinates: SetOfCoordinates3D) -> bool:
    """Whether the scores tell coordinates apart; sets without scores have the same one throughout."""
    return len(coordinates.getUniqueValues("_score")) > 1


def write_compared(
    coordinates: SetOfCoordinates3D,
    tsIds: Iterable[str],
    labels: Dict[int, str],
    diameters: Dict[str, float],
    path: str,
) -> Rows:
    """Write the coordinates in some tomograms, in their set's voxels; returns which coordinate each row is."""
    rows: Dict[str, List[list]] = {tsId: [] for tsId in tsIds}
    ids: Rows = {tsId: [] for tsId in rows}
    scored = has_scores(coordinates)
    for item in enabled_coordinates(coordinates):
        tsId = item.getTomoId()
        if tsId in rows:
            label = labels[item.getGroupId()]
            score = float(item.getScore()) if scored else None
            rows[tsId].append(_row(tsId, item.getPosition(BOTTOM_LEFT_CORNER), label, diameters, score))
            ids[tsId].append(item.getObjId())
    _write(path, rows, float(coordinates.getSamplingRate()))
    return ids


def candidates_of(picks: SetOfCoordinates3D, tsIds: Iterable[str]) -> Dict[str, str]:
    """By tsId the file in which the run behind the picks listed all candidates, where it did."""
    folder = os.path.join(os.path.dirname(picks.getFileName()), "extra")
    paths = {tsId: os.path.join(folder, f"{tsId}_peaks.star") for tsId in tsIds}
    return {tsId: path for tsId, path in paths.items() if os.path.exists(path)}


def write_candidates(
    picks: SetOfCoordinates3D, files: Dict[str, str], labels: Dict[int, str], diameters: Dict[str, float], path: str
) -> None:
    """Write the listed candidates under the labels of the picks."""
    names = {name: labels[group] for group, name in kind_names(picks).items()}
    only = set(labels.values()) if set(labels.values()) == {ONE_KIND} else set()
    rows: Dict[str, List[list]] = {}
    for tsId, file in files.items():
        rows[tsId] = []
        for pick in read_picks(file):
            label = next(iter(only)) if only else names.get(pick.label, pick.label)
            rows[tsId].append(_row(tsId, (pick.x, pick.y, pick.z), label, diameters, pick.score))
    _write(path, rows, float(picks.getSamplingRate()))


def _row(tsId: str, xyz: Any, label: str, diameters: Dict[str, float], score: Optional[float]) -> list:
    row = [tsId, *(float(value) for value in xyz), label, float(diameters.get(label, "nan"))]
    return row if score is None else row + [score]


def _write(path: str, rows: Dict[str, List[list]], samplingRate: float) -> None:
    labels = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "tomotwinLabel"]
    labels += ["tomotwinDiameterAngst", "tomotwinScore"]
    every = [row for own in rows.values() for row in own]
    tables: Dict[str, Table] = {
        "tomotwin_tomograms": (["rlnTomoName", "tomotwinVoxelSizeAngst"], [[tsId, samplingRate] for tsId in rows]),
        "particles": (labels[: len(every[0])] if every else labels, every),
    }
    write_tables(path, tables)


# ------------------------------ verdicts ------------------------------
class Verdicts(NamedTuple):
    """Ids of the picks that are right and that are false, and of the particles that were missed with their labels."""

    right: Set[int]
    false: Set[int]
    missed: Dict[int, str]


def read_verdicts(path: str, picks: Rows, truth: Rows) -> Verdicts:
    """The engine's table of matches, in terms of the coordinates behind the rows."""
    found = Verdicts(set(), set(), {})
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            if row["verdict"] == MISSED:
                found.missed[truth[row["tomogram"]][int(row["true"])]] = row["label"]
            else:
                one = picks[row["tomogram"]][int(row["pick"])]
                (found.right if row["verdict"] == RIGHT else found.false).add(one)
    return found


def copied(
    source: SetOfCoordinates3D,
    output: SetOfCoordinates3D,
    ids: Set[int],
    regrouped: Optional[Callable[[int], int]] = None,
) -> SetOfCoordinates3D:
    """Put copies of some coordinates of a set into an empty one, with group ids from `regrouped` by their own id."""
    output.copyInfo(source)
    # The pointer, not the set that it points to: a set apart from its run could not be found again.
    output.setPrecedents(source._precedentsPointer)
    for item in source.iterCoordinates():
        if item.getObjId() in ids:
            one = item.clone()
            if regrouped is not None:
                one.setGroupId(regrouped(item.getObjId()))
            output.append(one)
    return output


def group_table(
    kinds: Kinds, names: Dict[int, str], diameters: Dict[str, float]
) -> Tuple[List[Dict[str, str]], Dict[str, int]]:
    """What the group ids of the outputs stand for: those of the picks as they were (`names`), and others for particles of
    kinds that were not picked at all, or all of one number where kinds are not told apart.

    Returns
    -------
    The rows of a ``groups.csv``, and the group id of the missed particles of each label.
    """
    rows = [_group(group, names[group], diameters.get(label)) for group, label in sorted(kinds.picks.items())]
    groups: Dict[str, int] = {}
    if ONE_KIND not in kinds.picks.values():
        for group, label in sorted(kinds.picks.items()):
            groups.setdefault(label, group)
    number = max(kinds.picks, default=0)
    for label in sorted(set(kinds.truth.values()) - set(groups)):
        number += 1
        groups[label] = number
        rows.append(_group(number, label, diameters.get(label)))
    return rows, groups


def _group(group: int, name: str, diameter: Optional[float]) -> Dict[str, str]:
    return {"group_id": str(group), "target": name, "diameter_A": f"{diameter or 0:.0f}"}
