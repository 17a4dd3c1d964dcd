"""Scipion's coordinates as a session of the picking window, and what stays of them as a new output.

A session begins with exactly the coordinates of the set. Where the run that made them has listed fainter candidates
(``<tsId>_peaks.star``), those come with lower thresholds.
"""

import os
from functools import partial
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import mrcfile
import numpy as np
from pwem.emlib.image import ImageHandler
from pwem.protocols import EMProtocol
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import SetOfCoordinates3D, Tomogram

from tomotwin_view import session as window
from tomotwin_view.session_file import write_session
from tomotwin_view.star import read_table

from .. import __version__
from ..convert import LINKED_AS_THEY_ARE, MRC_EXTENSIONS, Pick, new_coordinate, plain_path, read_picks
from ..enabled import enabled_coordinates
from ..targets import GROUPS_FILE, read_groups

FILTERED = "filtered3DCoordinates"
"""Name of the outputs made here; from the second on with a number."""

_IMOD_STAMP = 1146047817


class Row(NamedTuple):
    """One candidate: where it comes from, and what is known about it (A, voxels from the corner)."""

    tsId: str
    group: int
    xyz: Tuple[float, float, float]
    score: float
    diameter: float
    fdr: float


class ViewedPicks:
    """A set of coordinates, the run that it belongs to, and the session on it."""

    def __init__(self, coordinates: SetOfCoordinates3D, protocol: EMProtocol) -> None:
        self.coordinates, self.protocol = coordinates, protocol
        self._tomograms = {item.getTsId(): item.clone() for item in coordinates.getPrecedents()}
        self._groups, diameters = read_groups(protocol._getExtraPath(GROUPS_FILE))
        listed = {tsId: self._listed(tsId, "peaks") for tsId in self._tomograms}
        self._ids, items = self._items(diameters)
        for group in sorted({row.group for row in items} - set(self._groups)):
            self._groups[group] = f"group {group}"
        tsIds = sorted({row.tsId for row in items} | {tsId for tsId, picks in listed.items() if picks})
        numbers = {name: group for group, name in self._groups.items()}
        peaks = [(tsId, pick, fdr) for tsId in tsIds for pick, fdr in listed[tsId] if pick.label in numbers]
        candidates = [
            Row(tsId, numbers[pick.label], (pick.x, pick.y, pick.z), pick.score, pick.diameter, fdr)
            for tsId, pick, fdr in peaks
        ]
        order = list(self._groups)
        rows, score_min, taken = window.with_candidates(
            _table(items, tsIds, order), _table(candidates, tsIds, order), (len(tsIds), len(order))
        )
        self._added = [(tsId, pick, numbers[pick.label]) for (tsId, pick, _), new in zip(peaks, taken) if new]
        shown = [shown_tomogram(self._tomograms[tsId]) for tsId in tsIds]
        self.session = window.PicksSession(shown, list(self._groups.values()), rows, score_min)

    def register(self, session: window.PicksSession) -> str:
        """Make what stays a new output of the run; returns a sentence about it.

        Raises
        ------
        RuntimeError
            When the run has not finished or nothing stays.
        """
        protocol, stay = self.protocol, session.accepted()
        if protocol.isActive():
            raise RuntimeError("The run has not finished yet: wait for it, then create the output.")
        if not stay.any():
            raise RuntimeError("No pick stays: lower a threshold or accept some.")
        name = unique_name(protocol)
        output = SetOfCoordinates3D.create(protocol._getPath(), suffix=name)
        output.copyInfo(self.coordinates)
        # The pointer, not the set that it points to: a set apart from its run could not be found again.
        output.setPrecedents(self.coordinates._precedentsPointer)
        kept = {self._ids[row] for row in np.flatnonzero(stay[: len(self._ids)])}
        for item in enabled_coordinates(self.coordinates):
            if item.getObjId() in kept:
                output.append(item.clone())
        for row in np.flatnonzero(stay[len(self._ids) :]):
            tsId, pick, group = self._added[row]
            output.append(new_coordinate(self._tomograms[tsId], pick, group))
        output.write()
        protocol._defineOutputs(**{name: output})
        protocol._defineSourceRelation(self.coordinates._precedentsPointer, output)
        protocol._defineSourceRelation(self.coordinates, output)
        protocol._store()
        settings = {"run": protocol.getRunName(), "coordinates": self.coordinates.getFileName()}
        record = protocol._getExtraPath(name + ".star")
        write_session(record, session, {"software": f"tomotwin {__version__}", "settings": settings})
        return f"New output {name}: {output.getSize()} of {len(stay)} candidates. The session is kept in {record}"

    def _items(self, diameters: Dict[int, float]) -> Tuple[List[int], List[Row]]:
        """Ids and rows of the coordinates; size and rate, which Scipion has no place for, from the run's own files."""
        told = {
            (tsId, *np.round((pick.x, pick.y, pick.z), 2)): (pick.diameter, fdr)
            for tsId in self._tomograms
            for pick, fdr in self._listed(tsId, "picks")
        }
        box = float((self.coordinates.getBoxSize() or np.nan) * self.coordinates.getSamplingRate())
        ids, rows = [], []
        for item in enabled_coordinates(self.coordinates):
            place, group = item.getPosition(BOTTOM_LEFT_CORNER), item.getGroupId() or 0
            unknown = (diameters.get(group, box), np.nan)
            diameter, fdr = told.get((item.getTomoId(), *np.round(place, 2)), unknown)
            ids.append(item.getObjId())
            rows.append(Row(item.getTomoId(), group, place, item.getScore(), diameter, fdr))
        return ids, rows

    def _listed(self, tsId: str, what: str) -> List[Tuple[Pick, float]]:
        """Picks with their expected FDR in the run's file of "peaks" or "picks" of a tomogram; none without the file."""
        path = self.protocol._getExtraPath(f"{tsId}_{what}.star")
        if not os.path.exists(path):
            return []
        rates = [float(row.get("tomotwinFDR", np.nan)) for row in read_table(path, "particles")]
        return list(zip(read_picks(path), rates))


def unique_name(protocol: EMProtocol) -> str:
    """A name for an output that the run does not have yet."""
    name, number = FILTERED, 1
    while hasattr(protocol, name):
        number += 1
        name = f"{FILTERED}{number}"
    return name


def shown_tomogram(tomogram: Tomogram) -> window.Tomogram:
    """A tomogram of Scipion as the window takes it."""
    x, y, z = tomogram.getDim()
    return window.Tomogram(tomogram.getTsId(), tomogram.getSamplingRate(), (z, y, x), partial(open_voxels, tomogram))


def open_voxels(tomogram: Tomogram) -> np.ndarray:
    """The voxels [z, y, x]; of MRC files they are mapped, so that only what is looked at is read."""
    path = plain_path(tomogram.getFileName())
    if not path.lower().endswith((*MRC_EXTENSIONS, ".mrc.gz")):
        return np.squeeze(ImageHandler().read(tomogram).getData())
    opened = mrcfile.open if path.lower().endswith(LINKED_AS_THEY_ARE) else mrcfile.mmap
    file = opened(path, permissive=True)
    data = file.data
    # IMOD once wrote unsigned bytes as mode 0; its stamp and the first bit of a flag say which.
    stamp, flags = np.frombuffer(file.header.tobytes(), "<i4", 2, 152)
    return data.view(np.uint8) if data.dtype == np.int8 and stamp == _IMOD_STAMP and not flags & 1 else data


def _table(rows: Sequence[Row], tsIds: List[str], groups: List[int]) -> window.Picks:
    columns: Any = list(zip(*rows)) if rows else [[] for _ in Row._fields]
    index, order = {tsId: i for i, tsId in enumerate(tsIds)}, {group: i for i, group in enumerate(groups)}
    return window.Picks(
        tomogram=np.array([index[tsId] for tsId in columns[0]], dtype=int),
        target=np.array([order[group] for group in columns[1]], dtype=int),
        xyz=np.array(columns[2], dtype=float).reshape(-1, 3),
        score=np.array(columns[3], dtype=float),
        diameter_A=np.array(columns[4], dtype=float),
        fdr=np.array(columns[5], dtype=float),
        extra={},
    )
