"""What clusters look like: a gallery for each, and an overview of all on the map."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tomotwin_core.clustering.averaging import Averaged
from tomotwin_core.clustering.proposals import Proposal
from tomotwin_core.clustering.scene import Scene
from tomotwin_core.evaluation.pictures import _COLOURS
from tomotwin_core.files import atomic_path

_SHOWN, _STRIP = 12, 10
_GREY = "#B0B0B0"


def gallery(averaged: Averaged, proposal: Proposal, path: Path) -> None:
    """Central slices of the average along its three axes, then of the best members, along z."""
    figure = Figure(figsize=(7.5, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(3, 5, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, axis, name in zip(panels, (0, 1, 2), ("average, xy", "xz", "yz"), strict=False):
        _show(axes, _middle(averaged.volume, axis))
        axes.set_title(name, fontsize=7)
    for axes, box in zip(panels[3:], averaged.boxes[:_SHOWN], strict=False):
        _show(axes, _middle(box, 0))
    width_nm = averaged.volume.shape[0] * averaged.voxel_size_A / 10
    near = ", ".join(f"{n.name} {n.score:.2f}" for n in proposal.nearest)
    sure = "" if proposal.certainty is None else f", certainty {proposal.certainty:.2f}"
    title = f"{proposal.name} ({proposal.kind}): {proposal.count} members{sure}, about {proposal.diameter_A:.0f} A"
    figure.suptitle(f"{title}; boxes {width_nm:.0f} nm\n{'most like ' + near if near else proposal.why}", fontsize=8)
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
    colours = {p.name: _COLOURS[i % len(_COLOURS)] for i, p in enumerate(p for p in proposals if p.kind == "species")}
    for p in proposals:
        rows = [where[i] for i in p.members]
        place = np.median(scene.map[rows], axis=0)
        if p.name in colours:
            axes.scatter(*scene.map[rows].T, s=9, color=colours[p.name], lw=0)
            axes.text(*place, p.name.removeprefix("cluster_"), fontsize=8, weight="bold", ha="center")
        else:
            axes.scatter(*scene.map[rows].T, s=5, color="#5A5A5A", lw=0, alpha=0.5)
            axes.text(*place, p.kind, fontsize=6, color="#303030", ha="center")
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


def _show(axes: object, image: np.ndarray) -> None:
    low, high = np.percentile(image, (1, 99.5))
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), origin="lower", interpolation="bicubic")  # type: ignore[attr-defined]
