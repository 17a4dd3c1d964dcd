"""The gallery of a cluster: pictures that the engine made of it, or where there are none its members cut out of the tomograms.

What somebody has drawn a line around or merged has no pictures yet. So that one sees at once what it is, the middle planes of
some of its members are cut out of the voxels, the same way for all: as wide as the network's window, averaged over a few
planes, in grey levels of the tomogram about them.
"""

import os
from typing import Any, Callable, List, Optional, Tuple

import matplotlib.image
import numpy as np
from matplotlib.figure import Figure

from .cluster_session import ClustersSession

MOST_GALLERIES = 3
COLUMNS, ROWS = 6, 3
WIDTH_A = 370.0
"""Of the network's window."""
THICK_A = 60.0
"""Planes this far together are averaged, against the noise."""


class GalleryPanel:
    """Draws the galleries of the cluster at hand, those of all proposals that it is made of, one under the other, or its members.

    `folder` is that of `tomotwin cluster`; other arguments as `SlicesPanel`.
    """

    def __init__(
        self,
        figure: Figure,
        session: ClustersSession,
        later: Optional[Callable[[Callable[[], None]], None]] = None,
        folder: str = "",
    ) -> None:
        self.figure, self.session, self._folder, self._later = figure, session, folder, later
        self.paths: Optional[List[str]] = None
        """The pictures that are shown."""
        self.cut: Optional[Tuple[int, ...]] = None
        """The candidates that are shown where there are no pictures."""
        figure.set_facecolor("white")
        session.listeners.append(self._heard)
        self.refresh()

    def refresh(self) -> None:
        """Draw the pictures, if they are others than before."""
        session = self.session
        sources = session.entries[session.at_hand].sources if session.entries else ()
        named = [p.facts.get("gallery") for p in session.proposals if p.name in sources]
        paths = [os.path.join(self._folder, name) for name in named if name][:MOST_GALLERIES]
        cut = () if paths else self._chosen()
        if (paths, cut) == (self.paths, self.cut):
            return
        self.paths, self.cut = paths, cut
        self.figure.clear()
        words = ""
        for number, path in enumerate(paths):
            axes = self.figure.add_axes((0, 1 - (number + 1) / len(paths), 1, 1 / len(paths)))
            axes.set_axis_off()
            try:
                axes.imshow(matplotlib.image.imread(path), cmap="gray", interpolation="antialiased")
            except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: the PNG reader's word for a broken one
                words = f"{os.path.basename(path)} cannot be shown:\n{error}"
        if not paths:
            words = self._draw_members(cut)
        self.figure.text(0.5, 0.5, words, ha="center", va="center", fontsize=8, wrap=True)
        self.figure.canvas.draw_idle()

    def _chosen(self) -> Tuple[int, ...]:
        """Some members of the cluster at hand, evenly over all of them."""
        session = self.session
        if not session.entries or not session.has_voxels:
            return ()
        rows = np.flatnonzero(session.members(session.at_hand))
        number = min(len(rows), COLUMNS * ROWS)
        return (
            tuple(int(row) for row in rows[np.linspace(0, len(rows) - 1, number).round().astype(int)]) if number else ()
        )

    def _draw_members(self, rows: Tuple[int, ...]) -> str:
        """Draw members; returns what is to be said in place of pictures, or nothing."""
        if not rows:
            return "no gallery: `tomotwin cluster --selection` makes one of what is saved"
        opened: Any = {}
        for number, row in enumerate(rows):
            index = int(self.session.tomogram[row])
            tomogram = self.session.tomograms[index]
            try:
                if index not in opened:
                    opened[index] = tomogram.open()
                picture = middle_plane(opened[index], self.session.xyz[row], tomogram.voxel_size_A)
            except (OSError, ValueError) as error:
                return f"{tomogram.name} cannot be read:\n{error}"
            down, across = divmod(number, COLUMNS)
            axes = self.figure.add_axes((across / COLUMNS, 1 - (down + 1) / ROWS, 0.97 / COLUMNS, 0.97 / ROWS))
            axes.set_axis_off()
            finite = picture[np.isfinite(picture)]
            low, high = np.percentile(finite, (1, 99)) if len(finite) else (0.0, 1.0)
            axes.imshow(
                picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), interpolation="bilinear", origin="lower"
            )
        return ""

    def close(self) -> None:
        self.session.listeners.remove(self._heard)

    def _heard(self, what: str) -> None:
        if what in ("filter", "view"):
            if self._later is None:
                self.refresh()
            else:
                self._later(self.refresh)


def middle_plane(voxels: np.ndarray, xyz: np.ndarray, voxel_size_A: float) -> np.ndarray:
    """The planes about a place averaged, a square of `WIDTH_A`.

    voxels : [z, y, x].  xyz : (3,), voxels.  Returns [y, x] float32; NaN where it reaches out of the tomogram.
    """
    half, thick = max(round(WIDTH_A / voxel_size_A / 2), 1), round(THICK_A / voxel_size_A / 2)
    x, y, z = (int(value) for value in np.rint(xyz))
    depth, height, width = voxels.shape
    planes = slice(max(z - thick, 0), min(z + thick + 1, depth))
    rows, columns = (
        slice(max(y - half, 0), min(y + half + 1, height)),
        slice(max(x - half, 0), min(x + half + 1, width)),
    )
    out = np.full((2 * half + 1, 2 * half + 1), np.nan, np.float32)
    cut = np.asarray(voxels[planes, rows, columns], np.float32)
    if cut.size:
        top, left = rows.start - (y - half), columns.start - (x - half)
        out[top : top + cut.shape[1], left : left + cut.shape[2]] = cut.mean(axis=0)
    return out
