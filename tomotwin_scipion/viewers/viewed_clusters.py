"""Clusters of a run of *cluster picking* as a session of the window on them, and what is chosen there as new outputs.

Saving keeps the choice beside the clusters (selection.json), so that the run can go on with it ("those chosen in the window"),
and makes an output of each cluster that is picked: of the places that it was made of, at once. Going on with the run
looks for every copy of them, at finer positions, with scores and thresholds.
"""

import os
from functools import partial
from typing import Any, Callable, Dict, List, Optional

import numpy as np
from pwem.protocols import EMProtocol
from tomo.objects import SetOfCoordinates3D, Tomogram

from tomotwin_view.cluster_files import read_clusters, read_selection, write_selection
from tomotwin_view.cluster_session import ClustersSession

from .. import Plugin
from ..clusters import group_of, output_name
from ..convert import Pick, new_coordinate
from ..protocols.picking_report import Row, read_rows, write_rows
from .viewed_picks import open_voxels

SELECTED = "selected"
"""In front of the name of a cluster in that of the outputs made here."""


class ViewedClusters:
    """The clusters of a run, the session on them, and the run."""

    def __init__(self, protocol: EMProtocol) -> None:
        self.protocol = protocol
        self.folder = protocol._getClustersFolder()
        embeddings = protocol.inputEmbeddings.get()
        self._pointer = embeddings.getTomograms(asPointer=True)
        self._tomograms: Dict[str, Tomogram] = {t.getTsId(): t.clone() for t in embeddings.getTomograms()}
        self.session = read_clusters(self.folder, self.open)
        for path in (protocol._getWindowsFile(), protocol._getSelectionFile()):
            if os.path.exists(path):  # what was chosen last: in the window, else for the picks
                self.session.restore(read_selection(path))
                break
        self.session.changed = False

    def open(self, name: str, file: Optional[str]) -> Optional[Callable[[], np.ndarray]]:
        """What opens a tomogram; None where it is not there any more."""
        tomogram = self._tomograms.get(name)
        if tomogram is None or not os.path.exists(tomogram.getFileName().split(":mrc")[0]):
            return None
        return partial(open_voxels, tomogram)

    def engine(self) -> List[str]:
        """The words in front of "cluster" with which the window calls the engine, in the engine's own surroundings."""
        call = Plugin.getProgram() + ' "$@"'
        return ["env", "-u", "PYTHONPATH", "bash", "-c", call, "tomotwin"]

    def engine_options(self) -> List[str]:
        """What the run has told the engine about finding clusters, and on what it computes."""
        return [str(word) for word in self.protocol._findingArgs() + self.protocol._engineArgs()]

    def register(self, session: ClustersSession) -> str:
        """Keep what is chosen, and make an output of each cluster that is picked; returns a sentence about it.

        Raises
        ------
        RuntimeError
            When the run has not finished.
        ValueError
            When no cluster is picked.
        """
        protocol = self.protocol
        if protocol.isActive():
            raise RuntimeError("The run has not finished yet: wait for it, then create the outputs.")
        write_selection(protocol._getWindowsFile(), session.chosen())
        groups = self._groups(session)
        made = [self._output(session, number, group) for number, group in groups.items()]
        protocol._store()
        count = f"{len(made)} new output{'s' * (len(made) > 1)}"
        return (
            f"{count} of this run: {', '.join(made)}. For every copy of them set 'Clusters to pick' to 'those chosen in "
            "the window' and continue the run."
        )

    def _output(self, session: ClustersSession, number: int, group: int) -> str:
        """Make an output of the members of an entry; returns its name."""
        protocol, entry, rows = self.protocol, session.entries[number], np.flatnonzero(session.members(number))
        taken = [name for name, _ in protocol.iterOutputAttributes()]
        name = output_name(SELECTED, entry.name, taken)
        output = SetOfCoordinates3D.create(protocol._getPath(), suffix=name)
        output.setPrecedents(self._pointer)
        output.setSamplingRate(self._pointer.get().getSamplingRate())
        output.setBoxSize(protocol._boxOf(_diameter(session, rows)))
        for row in rows:
            tsId = session.tomograms[session.tomogram[row]].name
            size, probability = float(session.diameter_A[row]), float(session.candidates.probability[row])
            x, y, z = map(float, session.xyz[row])
            pick = Pick(x, y, z, entry.name, probability, size)
            output.append(new_coordinate(self._tomograms[tsId], pick, group))
        output.setObjLabel(f"{entry.name}, chosen in the window")
        output.write()
        protocol._defineOutputs(**{name: output})
        protocol._defineSourceRelation(self._pointer, output)
        protocol._defineSourceRelation(protocol.inputEmbeddings, output)
        return name

    def _groups(self, session: ClustersSession) -> Dict[int, int]:
        """A group id for each entry that is picked, by its position, kept in the run's table of groups."""
        path = self.protocol._getGroupsFile()
        rows: List[Row] = read_rows(path) if os.path.exists(path) else []
        known = {row["target"]: int(row["group_id"]) for row in rows}
        listed, groups = set(known), {}
        for number, entry in enumerate(session.entries):
            members = np.flatnonzero(session.members(number))
            if not (entry.picked and len(members)):
                continue
            groups[number] = group_of(entry.name, known)
            if entry.name not in listed:
                rows.append(
                    {
                        "group_id": str(groups[number]),
                        "target": entry.name,
                        "diameter_A": f"{_diameter(session, members):.0f}",
                        "threshold": "none",
                        "picks": str(len(members)),
                        "expected_fdr": "nan",
                        "source": "chosen in the window",
                    }
                )
        write_rows(path, rows)
        return groups


def _diameter(session: ClustersSession, rows: np.ndarray) -> float:
    sizes: Any = session.diameter_A[rows]
    return float(np.nanmedian(sizes))
