"""A window with slices of one volume after the other: sliders for z and y, buttons for the volume before and the next."""

from functools import partial
from typing import Any, Dict, Tuple

from matplotlib.widgets import Button, Slider
from pyworkflow.gui.plotter import Plotter

ALONG_Y, ALONG_Z = 1, 2
THICKNESS, SMOOTHING = 5, 1  # of the tomograms' slices


class SlicePlotter(Plotter):
    """What viewers of volumes share; a viewer adds its axes, opens a volume and draws a slice of it."""

    remark = ""
    """Written above, after the volume's name."""

    def __init__(self, count: int, title: str, size: Tuple[float, float]) -> None:
        super().__init__(1, 1, figsize=size, windowTitle=title)
        self.tightLayoutOn = False
        self.count, self.number = count, 0
        self.sliders: Dict[int, Slider] = {
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
            slider.on_changed(partial(self._moved, along))

    def open(self, number: int) -> Tuple[Tuple[int, ...], str]:
        """Open a volume; returns its shape (z, y, x) and its name."""
        raise NotImplementedError

    def redraw(self, along: int, at: int) -> None:
        """Draw one of the slices anew: that across `along` at a plane."""
        raise NotImplementedError

    def choose(self, number: int) -> None:
        """Show another volume, at its middle."""
        self.number = number % self.count
        shape, name = self.open(self.number)
        self.figure.suptitle(f"{name} ({self.number + 1} of {self.count}){self.remark}")
        for along, slider in self.sliders.items():
            last = shape[2 - along] - 1
            slider.valmax = last
            slider.ax.set_xlim(0, max(last, 1))
            slider.set_val(last // 2)

    def turn(self, step: int, event: Any = None) -> None:
        """Show the next volume, or the one before."""
        self.choose(self.number + step)

    def redraw_all(self) -> None:
        """Draw both slices where they are."""
        for along, slider in self.sliders.items():
            self._moved(along, slider.val)

    def _moved(self, along: int, at: float) -> None:
        self.redraw(along, int(at))
        self.figure.canvas.draw_idle()
