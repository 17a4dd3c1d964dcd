"""Picks on slices of a tomogram, beside the truth, as a picture."""

from collections.abc import Sequence
from itertools import product
from os import PathLike

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.files import atomic_path
from tomotwin_core.tomogram import Voxels

# Okabe and Ito's colours, which the colour-blind tell apart, then some more for many species; all readable on grey.
_COLOURS = (
    "#E69F00",
    "#56B4E9",
    "#00D69B",
    "#F0E442",
    "#3A86FF",
    "#FF5E3A",
    "#FF8AD4",
    "#B8F35B",
    "#C77DFF",
    "#00E5FF",
    "#FFC9A3",
    "#D1495B",
    "#8DFFC1",
    "#A6A6FF",
)
_PANEL_INCHES = 5.0
_DEFAULT_DIAMETER_VOX = 12.0


def picks_picture(
    tomogram: NDArray[np.float32] | Voxels,
    picks: Coordinates,
    path: str | PathLike[str],
    truth: Coordinates | None = None,
    slices: Sequence[int] | None = None,
    thickness: int = 5,
    title: str = "",
) -> None:
    """Draw picks, and the truth beside them, on xy slices of a tomogram and write the picture (PNG by its ending).

    Parameters
    ----------
    tomogram : array [z, y, x], or an open tomogram
        An array is taken to be in the picks' voxels.
    picks, truth : Coordinates
        Drawn as circles of their diameter, one colour per label, where the slice passes through the inner half of the
        particle.
    path : path
    slices : sequence of int, optional
        The z of each slice, in the tomogram's voxels; the middle one by default.
    thickness : int
        Number of planes averaged for the image, which is then smoothed by a Gaussian of one voxel.
    title : str
        Over the picture.
    """
    depth, height, width = tomogram.shape
    voxel_size = picks.voxel_size_A if isinstance(tomogram, np.ndarray) else tomogram.voxel_size_A
    shown = [("picks", picks.to_voxel_size(voxel_size))]
    if truth is not None:
        shown.append(("truth", truth.to_voxel_size(voxel_size)))
    colours = _colours([table for _, table in shown])
    heights = [depth // 2] if slices is None else list(slices)
    # With truth, a slice is a row of two panels; without, the slices stand side by side.
    grid = (len(heights), 2) if truth is not None else (1, len(heights))

    # Figure and canvas by hand rather than through pyplot: no global state, no window system.
    legend_columns = 4 * grid[1]
    legend_inches = 0.25 * -(-len(colours) // legend_columns)
    panel_height = _PANEL_INCHES * height / width + 0.25
    size = (_PANEL_INCHES * grid[1], panel_height * grid[0] + legend_inches + (0.35 if title else 0))
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(*grid, squeeze=False).ravel()
    for axes, (z, (name, table)) in zip(panels, product(heights, shown), strict=True):
        image = _slice(tomogram, z, thickness)
        low, high = np.percentile(image, (0.5, 99.5))
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest")
        number = _circles(axes, table, z, colours)
        axes.set_title(f"{name}: {number} at z = {z}", fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        _scale_bar(axes, width, voxel_size)
    _legend(figure, colours, legend_columns)
    if title:
        figure.suptitle(title, fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _legend(figure: Figure, colours: dict[str, str], columns: int) -> None:
    if not colours:
        return
    handles = [
        Line2D([], [], ls="", marker="o", mfc="none", mew=2, ms=9, color=colour, label=label or "unnamed")
        for label, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _colours(tables: Sequence[Coordinates]) -> dict[str, str]:
    labels = sorted({str(label) for table in tables for label in np.unique(table.label)})
    return {label: _COLOURS[index % len(_COLOURS)] for index, label in enumerate(labels)}


def _slice(tomogram: NDArray[np.float32] | Voxels, z: int, thickness: int) -> NDArray[np.float32]:
    z0 = max(z - thickness // 2, 0)
    z1 = min(z0 + thickness, tomogram.shape[0])
    planes = tomogram[z0:z1] if isinstance(tomogram, np.ndarray) else tomogram.slab(z0, z1)
    image: NDArray[np.float32] = gaussian_filter(planes.mean(axis=0, dtype=np.float32), 1.0)
    return image


def _circles(axes: Axes, table: Coordinates, z: int, colours: dict[str, str]) -> int:
    """Draw what lies near the plane z; how many that were."""
    diameters = table.diameter_A / table.voxel_size_A
    diameters = np.where(np.isfinite(diameters), diameters, _DEFAULT_DIAMETER_VOX)
    near = np.abs(table.xyz[:, 2] - z) <= diameters / 4
    for label, colour in colours.items():
        chosen = near & (table.label == label)
        sides = diameters[chosen]
        circles = EllipseCollection(
            sides,
            sides,
            np.zeros(len(sides)),
            units="xy",
            offsets=table.xyz[chosen, :2],
            offset_transform=axes.transData,
            facecolors="none",
            edgecolors=colour,
            linewidths=1.4,
        )
        axes.add_collection(circles)
    return int(near.sum())


def _scale_bar(axes: Axes, width: int, voxel_size_A: float) -> None:
    """A bar of a round length, about a fifth of the image, low on the left."""
    fifth_nm = width * voxel_size_A / 50
    step = 10 ** np.floor(np.log10(fifth_nm))
    length_nm = step * max(factor for factor in (1, 2, 5) if factor * step <= fifth_nm)
    length, start = length_nm * 10 / voxel_size_A, 0.03 * width
    (bar,) = axes.plot([start, start + length], [start, start], color="white", lw=3, solid_capstyle="butt")
    name = axes.text(start + length / 2, 1.5 * start, f"{length_nm:g} nm", color="white", ha="center", fontsize=9)
    bar.set_path_effects([withStroke(linewidth=5, foreground="black")])
    name.set_path_effects([withStroke(linewidth=2.5, foreground="black")])
