"""Viewer of masks: slices of the tomograms, tinted where the mask leaves them out."""

from typing import Any, List, Tuple

import numpy as np
from pyworkflow.viewer import DESKTOP_TKINTER, View, Viewer
from tomo.objects import SetOfTomoMasks, TomoMask

from tomotwin_view.slabs import grey_range, slab

from ..constants import OUTPUT_MASKS
from ..protocols import ProtTwinCreateMask
from .slice_plotter import ALONG_Y, ALONG_Z, SMOOTHING, THICKNESS, SlicePlotter
from .viewed_picks import open_voxels

LEFT_OUT = (1.0, 0.25, 0.1, 0.45)  # red, green, blue, how much it covers


class MasksPlotter(SlicePlotter):
    """An xy and an xz slice of one tomogram, tinted by its mask."""

    remark = "; tinted: left out"

    def __init__(self, masks: List[TomoMask], title: str) -> None:
        super().__init__(len(masks), title, (8, 8.5))
        self.masks = masks
        self.axes = {
            ALONG_Z: self.figure.add_axes((0.06, 0.36, 0.88, 0.58)),
            ALONG_Y: self.figure.add_axes((0.06, 0.14, 0.88, 0.18)),
        }
        self.choose(0)

    def open(self, number: int) -> Tuple[Tuple[int, ...], str]:
        mask = self.masks[number]
        self.tomogram, self.mask = open_voxels(mask.getTomogram()), open_voxels(mask)
        self.grey = grey_range(self.tomogram, THICKNESS, SMOOTHING)
        return self.mask.shape, mask.getTsId()

    def redraw(self, along: int, at: int) -> None:
        axes = self.axes[along]
        image = slab(self.tomogram, along, at, THICKNESS, SMOOTHING)
        axes.clear()
        axes.imshow(image, cmap="gray", vmin=self.grey[0], vmax=self.grey[1], origin="lower")
        tint = np.zeros(image.shape + (4,))
        tint[slab(self.mask, along, at) == 0] = LEFT_OUT
        axes.imshow(tint, origin="lower")
        axes.set(xlabel="x (voxels)" if along == ALONG_Y else "", ylabel="z" if along == ALONG_Y else "y")


class TwinMasksViewer(Viewer):
    """Shows on slices of the tomograms what their masks leave out."""

    _name = "TomoTwin masks on slices"
    _environments = [DESKTOP_TKINTER]
    _targets = [ProtTwinCreateMask, SetOfTomoMasks]

    def _visualize(self, obj: Any, **kwargs: Any) -> List[View]:
        masks = obj if isinstance(obj, SetOfTomoMasks) else getattr(obj, OUTPUT_MASKS, None)
        if masks is None or not masks.getSize():
            return [self.errorMessage("There are no masks yet.", self._name)]
        return [MasksPlotter([mask.clone() for mask in masks.iterItems()], self._name)]
