"""Pictures of every structure: its density, its projection, and a slice of a simulated tomogram through a copy of it.

    python benchmarks/gallery.py                         the released library
    python benchmarks/gallery.py --structures FOLDER     a folder of structures (.cif, .pdb) and maps

Writes contact sheets docs/gallery_1.jpg and so on, largest molecule first. Each cell has three panels of the same width:
the central slice of the density, its projection along the same axis (protein bright in both), and the slice of a tomogram
through a copy in a random orientation (protein dark). Ends with a list of what could not be read or placed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import font_manager
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tomotwin_core.files import atomic_path
from tomotwin_core.progress import progress
from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.experiment import SimulatedTomogram, simulate_tomogram
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.structures import Density, load_library
from tomotwin_core.structures.build import build_library

VOXEL_A = 10.0
TAKEN = Acquisition(defocus_um=3.5, dose_e_per_A2=120.0)
# Molecules of about the same size share a tomogram; so many copies of each are tried, the best one is shown.
_TOGETHER, _COPIES, _TRIES = 12, 3, 5
# Width of a panel and of its picture's surroundings, against the molecule's.
_FIELD, _SMALLEST_FIELD_A = 1.5, 150.0
_PANEL, _COLUMNS, _ROWS = 84, 6, 11
_TEXT, _GAP, _HEADER = 30, 10, 28


@dataclass(frozen=True)
class Cell:
    """One molecule: what is written below its panels (id, mass, width of a panel; name), and the panels [y, x], 0 to 1."""

    title: str
    name: str
    panels: tuple[NDArray[np.float32], ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=Path, metavar="FOLDER", help="instead of the released library")
    parser.add_argument("--out", type=Path, default=Path("docs"), metavar="DIR", help="(default: docs)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    library = build_library(options.structures) if options.structures else load_library()
    largest_first = sorted(library.ids(), key=lambda i: -library.entries[i].mass_kDa)
    densities = {i: library.density(i) for i in largest_first}
    slices = tomogram_slices(densities, options.seed)
    cells = []
    for i in largest_first:
        entry = library.entries[i]
        title = f"{i}  {entry.mass_kDa:.0f} kDa  {field_A(densities[i]):.0f} \u00c5"
        cells.append(Cell(title, entry.name, (*views(densities[i]), slices.get(i, np.zeros((8, 8), np.float32)))))
    pages = [cells[i : i + _COLUMNS * _ROWS] for i in range(0, len(cells), _COLUMNS * _ROWS)]
    for number, page in enumerate(pages, start=1):
        path = options.out / f"gallery_{number}.jpg"
        with atomic_path(path) as temporary:
            sheet(page, f"{number} of {len(pages)}").save(temporary, quality=80, optimize=True)
        print(f"{path}: {len(page)} molecules, {path.stat().st_size / 1e3:.0f} kB")
    missing = sorted(set(densities) - set(slices))
    print(
        f"{len(densities)} structures, {len(slices)} in a tomogram"
        + (f"; not placed: {', '.join(missing)}" * bool(missing))
    )
    return 1 if missing else 0


def field_A(density: Density) -> float:
    """The width of a molecule's panels, in A."""
    return max(_FIELD * density.diameter_A, _SMALLEST_FIELD_A)


def views(density: Density) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Central slice and projection along z, each as wide as `field_A`."""
    values = density.values
    half = round(field_A(density) / density.voxel_size_A / 2)
    middle = values.shape[0] // 2
    return tuple(grey(cut(plane, (middle, middle), half)) for plane in (values[middle], values.sum(0)))  # type: ignore[return-value]


def tomogram_slices(densities: dict[str, Density], seed: int) -> dict[str, NDArray[np.float32]]:
    """For each molecule the slice of a simulated tomogram through the copy that lies farthest from the sides; another
    tomogram is tried for those that are cut by a side."""
    by_size = sorted(densities, key=lambda i: densities[i].diameter_A)
    groups = [by_size[i : i + _TOGETHER] for i in range(0, len(by_size), _TOGETHER)]
    found: dict[str, tuple[float, NDArray[np.float32]]] = {}
    for number, group in enumerate(progress(groups, desc="tomograms")):
        for attempt in range(_TRIES):
            left = {i: densities[i] for i in group if i not in found or found[i][0] < 0}
            if left:
                made = simulated(left, np.random.default_rng((seed, number, attempt)))
                for i, density in left.items():
                    seen = through_best_copy(made, i, density)
                    if seen and (i not in found or seen[0] > found[i][0]):
                        found[i] = seen
    return {i: panel for i, (_, panel) in found.items()}


def simulated(densities: dict[str, Density], rng: np.random.Generator) -> SimulatedTomogram:
    """A tomogram with room for all of them side by side."""
    widest = max(d.values.shape[0] * d.voxel_size_A for d in densities.values())
    depth = int(np.clip(1.3 * widest / VOXEL_A, 40, 200))
    side = int(np.clip(1.2 * widest / VOXEL_A * np.sqrt(_COPIES * len(densities)) + 0.5 * widest / VOXEL_A, 128, 420))
    shape = (depth + depth % 2, side + side % 2, side + side % 2)
    sample = SampleSettings(shape, VOXEL_A, 0.9 * depth * VOXEL_A, _COPIES, occupied=0.4, membrane_proteins="free")
    return simulate_tomogram(Molecules(densities, VOXEL_A), sample, TAKEN, rng, "gallery")


def through_best_copy(made: SimulatedTomogram, name: str, density: Density) -> tuple[float, NDArray[np.float32]] | None:
    """How far the panel stays inside the tomogram (voxels), and the panel; None where no copy found room."""
    xyz = made.truth.xyz[made.truth.label == name]
    if not len(xyz):
        return None
    sides = np.array(made.volume.shape[::-1]) - 1
    from_side = np.minimum(xyz, sides - xyz)[:, :2].min(axis=1)
    x, y, z = np.round(xyz[np.argmax(from_side)]).astype(int)
    half = max(round(field_A(density) / VOXEL_A / 2), 2)
    panel = grey(cut(made.volume[z], (y, x), half, float(made.volume[z].mean())))
    return float(from_side.max()) - half, panel


def cut(plane: NDArray[np.float32], centre: tuple[int, int], half: int, outside: float = 0.0) -> NDArray[np.float32]:
    """A square of 2 half + 1 pixels about a centre (y, x)."""
    padded = np.pad(plane, half, constant_values=outside)
    y, x = centre
    return padded[y : y + 2 * half + 1, x : x + 2 * half + 1]


def grey(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values 0 to 1, a hundredth of the pixels cut off at either end."""
    low, high = np.quantile(plane, [0.01, 0.99])
    return np.clip((plane - low) / max(float(high - low), 1e-12), 0, 1).astype(np.float32)


def sheet(cells: Sequence[Cell], number: str) -> Image.Image:
    """One page."""
    width, height = 3 * _PANEL + 4 + _GAP, _PANEL + _TEXT + _GAP
    rows = -(-len(cells) // _COLUMNS)
    page = Image.new("L", (_COLUMNS * width + _GAP, _HEADER + rows * height + _GAP), 255)
    draw = ImageDraw.Draw(page)
    bold, plain = (ImageFont.truetype(font_manager.findfont(f"DejaVu Sans:{w}"), 11) for w in ("bold", "regular"))
    header = (
        f"{number}.  Density (central slice), its projection, and a slice of a simulated tomogram through a copy in a random "
        f"orientation ({VOXEL_A:g} \u00c5 voxels, {TAKEN.dose_e_per_A2:g} e/\u00c5\u00b2, {TAKEN.defocus_um:g} \u00b5m underfocus)"
    )
    draw.text((_GAP, 8), header, font=bold, fill=0)
    for index, cell in enumerate(cells):
        x, y = _GAP + index % _COLUMNS * width, _HEADER + index // _COLUMNS * height
        for column, panel in enumerate(cell.panels):
            image = Image.fromarray(np.round(255 * panel).astype(np.uint8)).resize((_PANEL, _PANEL), Image.BICUBIC)
            page.paste(image, (x + column * (_PANEL + 2), y))
        draw.text((x, y + _PANEL + 2), shortened(cell.title, bold, 3 * _PANEL), font=bold, fill=0)
        draw.text((x, y + _PANEL + 15), shortened(cell.name, plain, 3 * _PANEL), font=plain, fill=0)
    return page


def shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """As much of a text as fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "\u2026") > width:
        text = text[:-1]
    return text.rstrip() + "\u2026"


if __name__ == "__main__":
    sys.exit(main())
