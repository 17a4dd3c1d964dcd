"""Many tomograms at a glance: the picks of each on one slice of it, all in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.evaluation.pictures import _circles, _colours, _legend, _slice
from tomotwin_core.files import atomic_path
from tomotwin_core.tomogram import open_tomogram

_PANEL_INCHES, _COLUMNS, _DPI = 3.2, 5, 110


def contact_sheet(
    tomograms: Sequence[tuple[str | PathLike[str], Coordinates]], path: str | PathLike[str], thickness: int = 5
) -> None:
    """Draw the picks of each tomogram on the slice that most of them lie near, and write the picture (.jpg or .png).

    tomograms : files with their picks, in the order of the panels.  thickness : number of planes averaged.
    """
    columns = min(_COLUMNS, max(len(tomograms), 1))
    rows = max(-(-len(tomograms) // columns), 1)
    figure = Figure(
        figsize=(_PANEL_INCHES * columns, (_PANEL_INCHES + 0.3) * rows + 0.4), dpi=_DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    colours = _colours([picks for _, picks in tomograms])
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, (file, picks) in zip(panels, tomograms, strict=False):
        source = open_tomogram(file, picks.voxel_size_A)
        z = _busiest(picks, source.shape[0])
        image = _slice(source, z, thickness)
        low, high = np.percentile(image, (0.5, 99.5))
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="antialiased")
        shown = _circles(axes, picks, z, colours)
        axes.set_title(f"{source.name}: {len(picks)} picks, {shown} near z = {z}", fontsize=8)
    _legend(figure, colours, 4 * columns)
    with atomic_path(Path(path)) as temporary:
        figure.savefig(temporary)


def _busiest(picks: Coordinates, depth: int) -> int:
    """The z that most picks lie near; the middle one without picks."""
    if not len(picks):
        return depth // 2
    counts = np.bincount(np.clip(np.round(picks.xyz[:, 2]).astype(int), 0, depth - 1), minlength=depth)
    reach = max(round(float(np.nanmedian(np.append(picks.diameter_A, 100.0))) / picks.voxel_size_A / 4), 1)
    return int(np.convolve(counts, np.ones(2 * reach + 1), mode="same").argmax())
