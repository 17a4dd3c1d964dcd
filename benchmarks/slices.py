"""A contact sheet of mini-tomograms as training sees them: everything drawn, normalised, protein bright.

    python benchmarks/slices.py --out docs/simulated_slices.jpg

Molecules whose centre lies within 40 A of the slice are circled in yellow, places listed as furniture in red.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from tomotwin_core.structures import load_library
from tomotwin_core.training.stream import FURNITURE, MiniTomogram, MiniTomogramStream, StreamSettings

_NEAR_VOX = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    library = load_library()
    stream = iter(MiniTomogramStream(library, library.ids("train"), StreamSettings(seed=options.seed)))
    count = options.rows * options.columns
    minis = [mini for pair in islice(stream, -(-count // 2)) for mini in pair][:count]
    figure, axes = plt.subplots(options.rows, options.columns, figsize=(2.6 * options.columns, 2.6 * options.rows))
    for axis, mini in zip(np.ravel(axes), minis, strict=True):
        draw(axis, mini)
    figure.subplots_adjust(0.004, 0.004, 0.996, 0.996, 0.02, 0.02)
    figure.savefig(options.out, dpi=100, pil_kwargs={"quality": 82})
    print(options.out)


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
