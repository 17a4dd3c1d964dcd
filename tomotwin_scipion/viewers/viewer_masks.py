"""Viewer of masks: slices of the tomograms, tinted where the mask leaves them out."""

from functools import partial
from typing import Any, List

import numpy as np
from matplotlib.widgets import Button, Slider
from pyworkflow.gui.plotter import Plotter
from pyworkflow.viewer import DESKTOP_TKINTER, View, Viewer
from tomo.objects import SetOfTomoMasks, TomoMask

from tomotwin_view.slabs import grey_range, slab

from ..constants import OUTPUT_MASKS
from ..protocols import ProtTwinCreateMask
from .viewed_picks import open_voxels

THICKNESS, SMOOTHING = 5, 1
ALONG_Y, ALONG_Z = 1, 2
LEFT_OUT = (1.0, 0.25, 0.1, 0.45)  # red, green, blue, how much it covers


class MasksPlotter(Plotter):
    """An xy and an xz slice of one tomogram, with sliders for their places, and buttons for the other tomograms."""

    def __init__(self, masks: List[TomoMask], title: str) -> None:
        super().__init__(1, 1, figsize=(8, 8.5), windowTitle=title)
        self.tightLayoutOn = False
        self.masks, self.number = masks, 0
        self.axes = {
            ALONG_Z: self.figure.add_axes((0.06, 0.36, 0.88, 0.58)),
            ALONG_Y: self.figure.add_axes((0.06, 0.14, 0.88, 0.18)),
        }
        self.sliders = {
            along: Slider(self.figure.add_axes((0.1, height, 0.5, 0.025)), name, 0, 1, valinit=0, valstep=1)
            for along, name, height in ((ALONG_Z, "z", 0.07), (ALONG_Y, "y", 0.03))
        }
        self.buttons = [
            Button(self.figure.add_axes((left, 0.03, 0.13, 0.05)), name)
            for left, name in ((0.68, "Previous"), (0.83, "Next"))
        ]
        for button, step in zip(self.buttons, (-1, 1)):
            button.on_clicked(partial(self.turn, step))
        for along, slider in self.sliders.items():
            slider.on_changed(partial(self.redraw, along))
        self.choose(0)

    def choose(self, number: int) -> None:
        """Show another tomogram, at its middle."""
        self.number = number % len(self.masks)
        mask = self.masks[self.number]
        self.tomogram, self.mask = open_voxels(mask.getTomogram()), open_voxels(mask)
        self.grey = grey_range(self.tomogram, THICKNESS, SMOOTHING)
        self.figure.suptitle(f"{mask.getTsId()} ({self.number + 1} of {len(self.masks)}); tinted: left out")
        for along, slider in self.sliders.items():
            last = self.mask.shape[2 - along] - 1
            slider.valmax = last
            slider.ax.set_xlim(0, last)
            slider.set_val(last // 2)

    def turn(self, step: int, event: Any = None) -> None:
        """Show the next tomogram, or the one before."""
        self.choose(self.number + step)

    def redraw(self, along: int, at: float) -> None:
        """Draw one of the slices anew."""
        axes = self.axes[along]
        image = slab(self.tomogram, along, int(at), THICKNESS, SMOOTHING)
        axes.clear()
        axes.imshow(image, cmap="gray", vmin=self.grey[0], vmax=self.grey[1], origin="lower")
        tint = np.zeros(image.shape + (4,))
        tint[slab(self.mask, along, int(at)) == 0] = LEFT_OUT
        axes.imshow(tint, origin="lower")
        axes.set(xlabel="x (voxels)" if along == ALONG_Y else "", ylabel="z" if along == ALONG_Y else "y")
        self.figure.canvas.draw_idle()


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
