"""A bar of a round length in a slice, low on the left, and its length in words."""

from typing import Any, List

import numpy as np
from matplotlib.artist import Artist
from matplotlib.patheffects import AbstractPathEffect, withStroke

OUTLINE: List[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground="black")]
"""Of white letters, so that they can be read on white."""


class ScaleBar:
    """About a fifth as long as the slice is wide; `artists` are drawn by the panel, after `place`."""

    def __init__(self, axes: Any) -> None:
        self._axes = axes
        (self._bar,) = axes.plot([], [], color="white", lw=3, solid_capstyle="butt", animated=True)
        self._text = axes.text(0, 0, "", color="white", ha="center", fontsize=9, animated=True)
        self._bar.set_path_effects([withStroke(linewidth=5, foreground="black")])
        self._text.set_path_effects(OUTLINE)
        self.artists: List[Artist] = [self._bar, self._text]

    def place(self, voxel_size_A: float) -> None:
        """After the limits of the axes, in voxels, have changed."""
        (low, high), (bottom, top) = self._axes.get_xlim(), self._axes.get_ylim()
        fifth_nm = (high - low) * voxel_size_A / 50
        step = 10 ** np.floor(np.log10(fifth_nm))
        length_nm = step * max(factor for factor in (1, 2, 5) if factor * step <= fifth_nm)
        start, length, y = low + 0.03 * (high - low), length_nm * 10 / voxel_size_A, bottom + 0.03 * (top - bottom)
        self._bar.set_data([start, start + length], [y, y])
        self._text.set_position((start + length / 2, y + 0.01 * (top - bottom)))
        self._text.set_text(f"{length_nm:g} nm")
