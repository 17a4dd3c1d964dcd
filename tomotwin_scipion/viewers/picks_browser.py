"""Picks drawn on slices of their tomograms, in a matplotlib figure with sliders; knows nothing of Scipion.

Sliders choose the height of the slice and the lowest similarity shown, so a threshold can be tried by eye before the
protocol is run with it. A pick is drawn as the circle in which the slice cuts a sphere of the target's diameter.
"""

from typing import Any, Dict, List, NamedTuple, Tuple

import mrcfile
import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.widgets import Button, Slider
from scipy.ndimage import gaussian_filter

# Okabe and Ito's colours, which the colour-blind tell apart, and two more; all readable on grey.
COLOURS = ("#E69F00", "#56B4E9", "#00D69B", "#F0E442", "#3A86FF", "#FF5E3A", "#FF8AD4", "#B8F35B", "#C77DFF", "#00E5FF")
# A single plane of a tomogram is mostly noise: some are averaged, and smoothed in the plane.
PLANES = 5
SMOOTHING_VOX = 1.0


class Target(NamedTuple):
    """What a group id stands for."""

    name: str
    diameter_vox: float


class BrowsedTomogram(NamedTuple):
    """A tomogram's file and its picks: x, y, z in voxels (n, 3), scores (n,), group ids (n,)."""

    name: str
    path: str
    xyz: np.ndarray
    scores: np.ndarray
    groups: np.ndarray


class PicksBrowser:
    """Draws into `figure`, and answers its sliders and buttons; keep a reference to it as long as the figure lives."""

    def __init__(self, figure: Figure, tomograms: List[BrowsedTomogram], targets: Dict[int, Target]) -> None:
        self.figure = figure
        self.tomograms = tomograms
        self.targets = targets
        self.number = -1
        scores = np.concatenate([tomogram.scores for tomogram in tomograms])
        low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)

        self.axes = figure.add_axes((0.05, 0.14, 0.7, 0.8))
        self.axes.set_axis_off()
        self.height = Slider(figure.add_axes((0.12, 0.07, 0.55, 0.03)), "slice z", 0, 1, valinit=0, valstep=1)
        self.score = Slider(figure.add_axes((0.12, 0.02, 0.55, 0.03)), "similarity", low, max(high, low + 1e-6))
        self.score.set_val(low)
        self.previous = Button(figure.add_axes((0.79, 0.03, 0.09, 0.06)), "previous")
        self.next = Button(figure.add_axes((0.89, 0.03, 0.09, 0.06)), "next")
        self.height.on_changed(lambda _: self.draw())
        self.score.on_changed(lambda _: self.draw())
        self.previous.on_clicked(lambda _: self.show(self.number - 1))
        self.next.on_clicked(lambda _: self.show(self.number + 1))
        figure.canvas.mpl_connect("scroll_event", self._scrolled)
        self.show(0)

    def show(self, number: int) -> None:
        """Turn to another tomogram, and its middle slice."""
        number %= len(self.tomograms)
        if number == self.number:
            return
        self.number = number
        # Mapped, not read: a slice of a large tomogram then costs a slice.
        self.volume: Any = mrcfile.mmap(self.tomograms[number].path, permissive=True).data
        depth = self.volume.shape[0]
        self.height.valmax = depth - 1
        self.height.ax.set_xlim(0, depth - 1)
        self.height.set_val(depth // 2)  # which draws

    def circles(self) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What cuts the slice now: centres x, y (n, 2), diameters in voxels (n,) and group ids (n,)."""
        tomogram = self.tomograms[self.number]
        sizes = np.array([self.targets[group].diameter_vox for group in tomogram.groups], dtype=float)
        distance = np.abs(tomogram.xyz[:, 2] - self.height.val)
        shown = (distance < sizes / 2) & (tomogram.scores >= self.score.val - 1e-6)
        diameters = 2 * np.sqrt((sizes[shown] / 2) ** 2 - distance[shown] ** 2)
        return tomogram.xyz[shown, :2], diameters, tomogram.groups[shown]

    def draw(self) -> None:
        """Draw the slice, the picks on it and the legend anew."""
        z = int(self.height.val)
        image = np.asarray(self.volume[max(z - PLANES // 2, 0) : z + PLANES // 2 + 1], dtype=np.float32).mean(axis=0)
        image = gaussian_filter(image, SMOOTHING_VOX)
        tomogram = self.tomograms[self.number]
        self.axes.clear()
        self.axes.set_axis_off()
        low, high = np.percentile(image, (1, 99))
        self.axes.imshow(image, cmap="gray", origin="lower", vmin=low, vmax=high, interpolation="nearest")
        centres, diameters, groups = self.circles()
        kept = tomogram.scores >= self.score.val - 1e-6
        handles = []
        for index, (group, target) in enumerate(sorted(self.targets.items())):
            colour = COLOURS[index % len(COLOURS)]
            mine = groups == group
            self.axes.add_collection(
                EllipseCollection(
                    diameters[mine],
                    diameters[mine],
                    np.zeros(mine.sum()),
                    units="x",
                    offsets=centres[mine],
                    offset_transform=self.axes.transData,
                    facecolors="none",
                    edgecolors=colour,
                    linewidths=1.5,
                )
            )
            count = int((kept & (tomogram.groups == group)).sum())
            label = f"{group}  {target.name}: {count}"
            handles.append(Line2D([], [], marker="o", linestyle="", fillstyle="none", color=colour, label=label))
        self.axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, title="picks")
        of = f"{self.number + 1} of {len(self.tomograms)}"
        self.axes.set_title(f"{tomogram.name} ({of}): {int(kept.sum())} picks, {len(groups)} on this slice")
        self.figure.canvas.draw_idle()

    def _scrolled(self, event: Any) -> None:
        """The wheel of the mouse goes through the slices."""
        self.height.set_val(min(max(self.height.val + event.step, 0), self.height.valmax))
