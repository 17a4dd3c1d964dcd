"""Viewer of *reference picking*: the picks on slices of the tomograms."""

import csv
from typing import Any, Dict, List

import numpy as np
from pwem.viewers import EmPlotter
from pyworkflow.viewer import DESKTOP_TKINTER, Viewer
from tomo.constants import BOTTOM_LEFT_CORNER

from ..constants import OUTPUT_COORDINATES
from ..convert import plain_path
from ..protocols import ProtTwinReferencePicking
from .picks_browser import BrowsedTomogram, PicksBrowser, Target


class TwinPicksViewer(Viewer):
    """Shows picks as circles on slices, coloured by target, with a slider for the lowest similarity."""

    _name = "TomoTwin picks on slices"
    _environments = [DESKTOP_TKINTER]
    _targets = [ProtTwinReferencePicking]

    def _visualize(self, obj: Any, **kwargs: Any) -> List[Any]:
        if not hasattr(obj, OUTPUT_COORDINATES):
            return [self.errorMessage("There are no picks yet.", "TomoTwin picks")]
        plotter = EmPlotter(figsize=(11, 8), windowTitle="TomoTwin picks: " + obj.getRunName())
        plotter.tightLayoutOn = False  # the browser places its axes itself
        # The figure holds the browser, or its sliders would be collected as garbage and stop answering.
        plotter.figure.browser = PicksBrowser(plotter.figure, browsed_tomograms(obj), browsed_targets(obj))
        return [plotter]


def browsed_targets(protocol: ProtTwinReferencePicking) -> Dict[int, Target]:
    """What the protocol's group ids stand for, with diameters in voxels of the tomograms."""
    samplingRate = getattr(protocol, OUTPUT_COORDINATES).getSamplingRate()
    with open(protocol._getGroupsFile(), newline="") as file:
        return {
            int(row["group_id"]): Target(row["target"], float(row["diameter_A"]) / samplingRate)
            for row in csv.DictReader(file)
        }


def browsed_tomograms(protocol: ProtTwinReferencePicking) -> List[BrowsedTomogram]:
    """The tomograms with picks, in the order of their tsIds."""
    coordinates = getattr(protocol, OUTPUT_COORDINATES)
    paths = {item.getTsId(): plain_path(item.getFileName()) for item in coordinates.getPrecedents()}
    rows: Dict[str, List[list]] = {tsId: [] for tsId in sorted(coordinates.getTSIds())}
    for item in coordinates.iterCoordinates():
        position = item.getPosition(BOTTOM_LEFT_CORNER)
        rows[item.getTomoId()].append([*position, item.getScore(), item.getGroupId()])
    browsed = []
    for tsId, values in rows.items():
        table = np.array(values, dtype=float).reshape(-1, 5)
        browsed.append(BrowsedTomogram(tsId, paths[tsId], table[:, :3], table[:, 3], table[:, 4].astype(int)))
    return browsed
