"""A window in which a range of planes is chosen on side views of tomograms."""

from functools import partial
from typing import Any, Callable, List, Optional, Tuple

from matplotlib.widgets import Button, RangeSlider
from pyworkflow.gui.plotter import Plotter
from tomo.objects import Tomogram

from tomotwin_view.slabs import grey_range, slab

from .slice_plotter import ALONG_Y, SMOOTHING
from .viewed_picks import open_voxels

ALONG_X = 0
SHARE_AVERAGED = 0.2
"""Side views average so much of a tomogram's width, in which the ice shows better than in a thin slice."""

MOST_AVERAGED = 60
LEFT_OUT = {"color": "red", "alpha": 0.25, "linewidth": 0}


class ZRangePlotter(Plotter):
    """Side views along y and x with the planes that are left out tinted, a slider with two ends, and a button that hands
    the range on.

    Parameters
    ----------
    tomograms
        Those to choose on.
    chosen
        First and last plane to begin with; None for all.
    use
        What takes the first and the last plane.
    """

    def __init__(
        self, tomograms: List[Tomogram], chosen: Optional[Tuple[int, int]], use: Callable[[int, int], None], title: str
    ) -> None:
        super().__init__(1, 1, figsize=(11, 7), windowTitle=title)
        self.tightLayoutOn = False
        self.tomograms, self.number, self.use = tomograms, 0, use
        self.axes = {
            ALONG_Y: self.figure.add_axes((0.07, 0.58, 0.9, 0.33)),
            ALONG_X: self.figure.add_axes((0.07, 0.17, 0.9, 0.33)),
        }
        deepest = max(item.getDim()[2] for item in tomograms)
        first, last = chosen or (0, deepest - 1)
        self.slider = RangeSlider(
            self.figure.add_axes((0.1, 0.05, 0.36, 0.03)), "planes", 0, deepest - 1, valinit=(first, last), valstep=1
        )
        self.slider.on_changed(self.tint)
        self.buttons = []
        for left, name, action in (
            (0.58, "Previous", partial(self.turn, -1)),
            (0.70, "Next", partial(self.turn, 1)),
            (0.82, "Use these planes", self.hand_on),
        ):
            button = Button(self.figure.add_axes((left, 0.04, 0.16 if left > 0.8 else 0.11, 0.05)), name)
            button.on_clicked(action)
            self.buttons.append(button)
        self.turn(0)

    @property
    def range(self) -> Tuple[int, int]:
        """First and last plane, as they stand."""
        first, last = self.slider.val
        return round(first), round(last)

    def turn(self, step: int, event: Any = None) -> None:
        """Show the next tomogram, or the one before."""
        self.number = (self.number + step) % len(self.tomograms)
        tomogram = self.tomograms[self.number]
        voxels = open_voxels(tomogram)
        self.figure.suptitle(
            f"{tomogram.getTsId()} ({self.number + 1} of {len(self.tomograms)}), {voxels.shape[0]} planes; tinted: left out"
        )
        for along, name in ((ALONG_Y, "x"), (ALONG_X, "y")):
            side = voxels.shape[2 - along]
            thickness = max(min(int(side * SHARE_AVERAGED), MOST_AVERAGED), 1)
            image = slab(voxels, along, side // 2, thickness, SMOOTHING)
            # A slice along x has z along its columns.
            image = image.T if along == ALONG_X else image
            low, high = grey_range(image[None], 1, 0)
            axes = self.axes[along]
            axes.clear()
            axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", aspect="auto")
            axes.set(xlabel=f"{name} (voxels)", ylabel="z")
        self.shades: List[Any] = []
        self.tint()

    def tint(self, event: Any = None) -> None:
        """Tint what is left out."""
        first, last = self.range
        for shade in self.shades:
            shade.remove()
        self.shades = []
        for axes in self.axes.values():
            low, high = axes.get_ylim()
            self.shades += [axes.axhspan(low, first - 0.5, **LEFT_OUT), axes.axhspan(last + 0.5, high, **LEFT_OUT)]
            axes.set_ylim(low, high)
        self.figure.canvas.draw_idle()

    def hand_on(self, event: Any = None) -> None:
        """Give the range to who asked, and close."""
        self.use(*self.range)
        self.close()
