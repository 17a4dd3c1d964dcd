"""What clusters look like: a gallery for each, and an overview of all on the map."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

from tomotwin_core.clustering.averaging import Averaged
from tomotwin_core.clustering.proposals import Proposal
from tomotwin_core.clustering.scene import Scene
from tomotwin_core.evaluation.pictures import _COLOURS
from tomotwin_core.files import atomic_path

# Species beyond four times `_NAMED`, and other clusters beyond so many of each kind, have no name on the map.
_SHOWN, _STRIP, _NAMED = 12, 10, 10
# Of a gallery, in pixels but for the counts.
_COLUMNS, _ROWS, _TILE, _GAP, _TITLE, _DPI = 5, 3, 140, 18, 50, 110
_GREY = "#B0B0B0"


def gallery(averaged: Averaged, proposal: Proposal, path: Path) -> None:
    """Central slices of the average along its three axes, then of the best members, along z."""
    images = [_middle(averaged.volume, axis) for axis in (0, 1, 2)] + [_middle(box, 0) for box in averaged.boxes[:_SHOWN]]
    side = _TILE + _GAP
    width, height = _COLUMNS * side + _GAP, _ROWS * side + _GAP + _TITLE
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    # Straight onto the figure's pixels: fifteen axes take ten times as long, and there may be hundreds of clusters.
    for i, image in enumerate(images):
        row, column = divmod(i, _COLUMNS)
        low, high = _greys(image)
        tile = ndimage.zoom(image, _TILE / image.shape[0], order=3)
        figure.figimage(tile, _GAP + column * side, (_ROWS - 1 - row) * side + _GAP, cmap="gray", vmin=low, vmax=high, origin="lower")
    for column, name in enumerate(("average, xy", "xz", "yz")):
        figure.text((_GAP + column * side + _TILE / 2) / width, (_ROWS * side + 5) / height, name, fontsize=7, ha="center")
    width_nm = averaged.volume.shape[0] * averaged.voxel_size_A / 10
    near = ", ".join(f"{n.name} {n.score:.2f}" for n in proposal.nearest)
    sure = "" if proposal.certainty is None else f", certainty {proposal.certainty:.2f}"
    title = f"{proposal.name} ({proposal.kind}): {proposal.count} members{sure}, about {proposal.diameter_A:.0f} A"
    why = f"most like {near}" if near else proposal.why
    figure.text(0.5, 1 - 6 / height, f"{title}; boxes {width_nm:.0f} nm\n{why}", fontsize=8, ha="center", va="top")
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def overview(
    scene: Scene, proposals: Sequence[Proposal], averages: Mapping[str, Averaged], path: Path, title: str = ""
) -> None:
    """The map coloured by cluster, beside the averages of the first ones."""
    figure = Figure(figsize=(11, 6.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1))
    axes = left.subplots()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.scatter(*scene.map.T, s=3, color=_GREY, lw=0, alpha=0.6)
    where = {int(i): row for row, i in enumerate(scene.ids)}
    rows_of = {p.name: [where[i] for i in p.members] for p in proposals}
    colours = {p.name: _COLOURS[i % len(_COLOURS)] for i, p in enumerate(p for p in proposals if p.kind == "species")}
    others = [p for p in proposals if p.name not in colours]
    if others:
        axes.scatter(*scene.map[np.concatenate([rows_of[p.name] for p in others])].T, s=5, color="#5A5A5A", lw=0, alpha=0.5)
    # Hundreds of names would hide the map.
    named: Counter[str] = Counter()
    for p in sorted(others, key=lambda p: -p.count):
        named[p.kind] += 1
        if named[p.kind] <= _NAMED:
            axes.text(*np.median(scene.map[rows_of[p.name]], axis=0), p.kind, fontsize=6, color="#303030", ha="center")
    for rank, (name, colour) in enumerate(colours.items()):
        places = scene.map[rows_of[name]]
        axes.scatter(*places.T, s=9, color=colour, lw=0)
        if rank < 4 * _NAMED:
            axes.text(*np.median(places, axis=0), name.removeprefix("cluster_"), fontsize=8, weight="bold", ha="center")
    axes.set_title("candidates on the map; grey: in no cluster, dark: no species", fontsize=8)
    shown = [p for p in proposals if p.name in averages][: 2 * _STRIP]
    columns = 4
    grid = right.subplots(max(-(-len(shown) // columns), 1), columns, squeeze=False).ravel()
    for panel in grid:
        panel.set_axis_off()
    for panel, p in zip(grid, shown, strict=False):
        _show(panel, _middle(averages[p.name].volume, 0))
        panel.set_title(f"{p.name}\n{p.kind}, {p.count}, {p.diameter_A:.0f} A", fontsize=6, color=colours.get(p.name, "#303030"))
    if title:
        figure.suptitle(textwrap.fill(title, 130), fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _middle(volume: np.ndarray, axis: int) -> np.ndarray:
    half = volume.shape[axis] // 2
    return np.asarray(volume.take(range(max(half - 1, 0), half + 2), axis=axis).mean(axis))


def _show(axes: Axes, image: np.ndarray) -> None:
    low, high = _greys(image)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="bicubic")


def _greys(image: np.ndarray) -> tuple[float, float]:
    """What is black and what white."""
    low, high = np.percentile(image, (1, 99.5))
    return float(low), float(max(high, low + 1e-9))
