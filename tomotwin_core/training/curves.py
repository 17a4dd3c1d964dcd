"""The learning curves as a picture, out of log.csv and validation.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tomotwin_core.files import atomic_path
from tomotwin_core.training.log import LOG, VALIDATION, read_rows

_COLOURS = {"seen": "tab:blue", "unseen": "tab:orange"}


def plot_curves(folder: Path) -> Path:
    """Write FOLDER/curves.png: loss, accuracy, and F1 of seen and unseen species, each species and their median."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = (figure.add_subplot(1, 3, i) for i in (1, 2, 3))
    log = read_rows(folder / LOG)
    steps = [int(r["step"]) for r in log]
    for axes, name, title in (
        (left, "loss", "loss"),
        (middle, "nearest_neighbour_accuracy", "most similar window is of the same species"),
    ):
        values = np.array([float(r[name]) for r in log])
        axes.plot(steps, values, color="0.8")
        axes.plot(steps, _smooth(values), color="black")
        axes.set(title=title, xlabel="step")
    middle.set_ylim(0, 1)
    rows = read_rows(folder / VALIDATION)
    for group, colour in _COLOURS.items():
        own = [r for r in rows if r["group"] == group]
        for species in sorted({r["species"] for r in own}):
            line = [(int(r["step"]), float(r["f1"])) for r in own if r["species"] == species]
            right.plot(*zip(*line), color=colour, alpha=0.2, linewidth=0.8)
        at = sorted({int(r["step"]) for r in own})
        medians = [np.median([float(r["f1"]) for r in own if int(r["step"]) == s]) for s in at]
        if at:
            right.plot(at, medians, color=colour, marker="o", label=f"{group}, median")
    right.set(title="F1 on validation tomograms", xlabel="step", ylim=(0, 1))
    if rows:
        right.legend()
    with atomic_path(folder / "curves.png") as temporary:
        figure.savefig(temporary, dpi=110)
    return folder / "curves.png"


def _smooth(values: np.ndarray, window: int = 9) -> np.ndarray:
    """Running median, shorter at the ends."""
    half = window // 2
    return np.array([np.median(values[max(i - half, 0) : i + half + 1]) for i in range(len(values))])
