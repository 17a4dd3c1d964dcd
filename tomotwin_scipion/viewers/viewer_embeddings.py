"""Viewer of embeddings: slices of the tomogram, and beside them what the network makes of it, as colours."""

from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from pyworkflow.viewer import DESKTOP_TKINTER, View, Viewer
from tomo.objects import Tomogram

from tomotwin_view.slabs import grey_range, slab

from ..constants import MODEL_VOXEL_SIZE_A, OUTPUT_EMBEDDINGS
from ..objects import SetOfTomogramEmbeddings
from ..protocols import ProtTwinEmbedTomograms
from .embedding_colours import EmbeddingColours
from .slice_plotter import ALONG_Y, ALONG_Z, SMOOTHING, THICKNESS, SlicePlotter
from .viewed_picks import open_voxels

SPACING_A = 2 * MODEL_VOXEL_SIZE_A
"""Distance of two embeddings."""

LOOK_AGAIN_MS = 500
TITLES = ("tomogram", "embedding: like places, like colours")


class EmbeddingsPlotter(SlicePlotter):
    """xy and xz slices of a tomogram on the left, the same of its embedding's colours on the right."""

    def __init__(self, tomograms: Dict[str, Tomogram], colours: EmbeddingColours, title: str) -> None:
        super().__init__(len(tomograms), title, (13, 8.5))
        self.tomograms, self.colours = tomograms, colours
        self.axes: Dict[int, List[Any]] = {}
        for along, bottom, height in ((ALONG_Z, 0.36, 0.54), (ALONG_Y, 0.14, 0.18)):
            left = self.figure.add_axes((0.05, bottom, 0.43, height))
            right = self.figure.add_axes((0.54, bottom, 0.43, height), sharex=left, sharey=left)
            self.axes[along] = [left, right]
        self.timer = self.figure.canvas.new_timer(interval=LOOK_AGAIN_MS)
        self.timer.add_callback(self.look_again)
        self.choose(0)

    def open(self, number: int) -> Tuple[Tuple[int, ...], str]:
        self.tsId = sorted(self.tomograms)[number]
        tomogram = self.tomograms[self.tsId]
        self.voxels = open_voxels(tomogram)
        self.grey = grey_range(self.voxels, THICKNESS, SMOOTHING)
        self.voxel_size_A = tomogram.getSamplingRate()
        self.shown: Optional[np.ndarray] = None
        self.told = "colours are being made: some seconds"
        self.colours.ask(self.tsId)
        if not self.look():
            self.timer.start()
        return self.voxels.shape, self.tsId

    def look(self) -> bool:
        """Take the colours if they are there by now; returns whether there is nothing more to wait for."""
        try:
            self.shown = self.colours.look(self.tsId)
        except RuntimeError as error:
            self.told = f"no colours: {error}"
        isDone = self.shown is not None or self.told.startswith("no colours")
        if isDone:
            self.timer.stop()
            self.redraw_all()
        return isDone

    def look_again(self) -> bool:
        """For the timer: matplotlib drops a callback that returns False, and this one is wanted for the next tomogram too."""
        self.look()
        return True

    def redraw(self, along: int, at: int) -> None:
        plain, coloured = self.axes[along]
        image = slab(self.voxels, along, min(at, self.voxels.shape[2 - along] - 1), THICKNESS, SMOOTHING)
        plain.clear()
        coloured.clear()
        plain.imshow(image, cmap="gray", vmin=self.grey[0], vmax=self.grey[1], origin="lower")
        if self.shown is None:
            coloured.set_aspect("equal")
            coloured.text(0.5, 0.5, self.told, ha="center", va="center", wrap=True, transform=coloured.transAxes)
        else:
            step = SPACING_A / self.voxel_size_A
            index = min(round(at / step), self.shown.shape[2 - along] - 1)
            colours = np.take(self.shown, index, axis=2 - along)
            # A grid point is the middle of the square around it; the first is that of the first voxel.
            rows, columns = (step * (side - 0.5) for side in colours.shape[:2])
            coloured.imshow(colours, origin="lower", extent=(-step / 2, columns, -step / 2, rows))
        for axes, title in zip((plain, coloured), TITLES):
            axes.set(title=title if along == ALONG_Z else "", xlabel="x (voxels)" if along == ALONG_Y else "")
        plain.set_ylabel("z" if along == ALONG_Y else "y")
        plain.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(-0.5, image.shape[0] - 0.5))


class TwinEmbeddingsViewer(Viewer):
    """Shows the embeddings of tomograms as colours, beside slices of the tomograms."""

    _name = "TomoTwin embeddings in colour"
    _environments = [DESKTOP_TKINTER]
    _targets = [ProtTwinEmbedTomograms, SetOfTomogramEmbeddings]

    def _visualize(self, obj: Any, **kwargs: Any) -> List[View]:
        embeddings = obj if isinstance(obj, SetOfTomogramEmbeddings) else getattr(obj, OUTPUT_EMBEDDINGS, None)
        if embeddings is None or not embeddings.getSize():
            return [self.errorMessage("There are no embeddings yet.", self._name)]
        zarrs = {item.getTsId(): item.getFileName() for item in embeddings.iterItems()}
        tomograms = {
            item.getTsId(): item.clone() for item in embeddings.getTomograms().iterItems() if item.getTsId() in zarrs
        }
        run = self.getProject().getProtocol(embeddings.getObjParentId())
        return [EmbeddingsPlotter(tomograms, EmbeddingColours(zarrs, run._getExtraPath()), self._name)]
