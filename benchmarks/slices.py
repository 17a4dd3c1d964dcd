"""A contact sheet of mini-tomograms as training sees them: everything drawn, normalised, protein bright.

    python benchmarks/slices.py --out docs/simulated_slices.jpg
    python benchmarks/slices.py --out docs/invented_molecules.png --invented

Molecules whose centre lies within 40 A of the slice are circled in yellow, places listed as furniture in red. Invented
molecules are shown as projections, as wide as the network's window.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from tomotwin_core.model import WINDOW
from tomotwin_core.structures import load_library
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A
from tomotwin_core.training.inventing import Invented, invent
from tomotwin_core.training.stream import FURNITURE, MiniTomogram, MiniTomogramStream, StreamSettings

_NEAR_VOX = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--invented", action="store_true", help="projections of invented molecules instead of slices")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    library = load_library()
    count = options.rows * options.columns
    if options.invented:
        rng, known = np.random.default_rng(options.seed), library.ids("train")
        drawn = (invent(str(i), known, library.density, rng) for i in range(2 * count))
        items: list[Any] = list(islice((m for m in drawn if m), count))
    else:
        stream = iter(MiniTomogramStream(library, library.ids("train"), StreamSettings(seed=options.seed)))
        items = [mini for pair in islice(stream, -(-count // 2)) for mini in pair][:count]
    figure, axes = plt.subplots(options.rows, options.columns, figsize=(2.6 * options.columns, 2.6 * options.rows))
    for axis, item in zip(np.ravel(axes), items, strict=True):
        if isinstance(item, Invented):
            draw_projection(axis, item)
        else:
            draw(axis, item)
    figure.subplots_adjust(0.004, 0.004, 0.996, 0.996, 0.02, 0.02)
    compressed = {"quality": 82} if options.out.suffix.lower() in (".jpg", ".jpeg") else None
    figure.savefig(options.out, dpi=100, pil_kwargs=compressed)
    print(options.out)


def draw_projection(axis: plt.Axes, made: Invented) -> None:
    """Along z, in a field as wide as the network's window."""
    half = int(WINDOW * MODEL_VOXEL_SIZE_A / made.density.voxel_size_A) // 2
    projection = made.density.values.sum(0)
    middle = projection.shape[0] // 2
    padded = np.pad(projection, half)[middle : middle + 2 * half + 1, middle : middle + 2 * half + 1]
    axis.imshow(padded, cmap="gray")
    axis.text(1, 3, f"{made.density.mass_kDa:.0f} kDa: {' + '.join(made.parents)}", color="white", fontsize=8, va="top")
    axis.set_axis_off()


def draw(axis: plt.Axes, mini: MiniTomogram) -> None:
    middle = mini.volume.shape[0] // 2
    axis.imshow(mini.volume[middle], cmap="gray", vmin=-3, vmax=3)
    near = np.abs(mini.xyz[:, 2] - middle) < _NEAR_VOX
    for (x, y, _), label, diameter in zip(mini.xyz[near], mini.label[near], mini.diameter_A[near], strict=True):
        colour = "red" if label == FURNITURE else "yellow"
        axis.add_patch(plt.Circle((x, y), max(diameter / 20, 2), fill=False, color=colour, linewidth=0.5))
    axis.set_axis_off()


if __name__ == "__main__":
    main()
