"""80S ribosomes in a real in-situ lamella: recall of the listed ones against the number of picks, beside a blob
finder.

Data (--data DIR): insitu_9.mrc.gz (128 x 256 x 256 voxels of 31.36 A, protein dark) and insitu_9_ribosomes.csv (55
positions, x, y, z in A and in voxels), public EMPIAR data binned 4 times. The list is incomplete, so it measures
recall, not precision. Two references: the ribosome's structure, simulated, and five of the listed positions (which
then do not count).

Run: python benchmarks/real_lamella.py --data DIR --out DIR
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.embedding import embed_to_disk
from tomotwin_core.evaluation import find_blobs, recall_by_number
from tomotwin_core.evaluation.pictures import picks_picture
from tomotwin_core.model import load_model
from tomotwin_core.picking import (
    LocationSettings,
    ReferenceSettings,
    locate,
    references_from_densities,
    references_from_positions,
)
from tomotwin_core.simulation import Acquisition
from tomotwin_core.structures import load_density
from tomotwin_core.tomogram import open_tomogram, write_mrc

VOXEL_A, DIAMETER_A = 31.36, 270.0
# Half the radius, and twice that: the listed positions are themselves off by up to a voxel, most in z.
TOLERANCES_A = (67.5, 135.0)
COUNTS = (50, 100, 200, 400, 800)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="released")
    parser.add_argument(
        "--planes", type=int, nargs=2, default=(10, 94), help="of the specimen; empty space is left out"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    whole = open_tomogram(options.data / "insitu_9.mrc.gz", VOXEL_A)
    low, high = options.planes
    write_mrc(options.out / "specimen.mrc", whole.slab(low, high), VOXEL_A)
    source = open_tomogram(options.out / "specimen.mrc")
    listed = read_listed(options.data / "insitu_9_ribosomes.csv")
    listed = listed[(listed[:, 2] >= low) & (listed[:, 2] < high)] - (0, 0, low)
    model = load_model(options.model)
    field = embed_to_disk(source, model, options.out / "specimen.zarr", contrast="dark")
    everything = LocationSettings(min_score=-1.0)
    references = references_from_densities(
        {"ribosome": load_density("library:4v6x")},
        model,
        Acquisition(),
        ReferenceSettings(seed=options.seed, voxel_size_A=VOXEL_A),
    )
    by_structure = locate(field, references, everything)
    examples = np.random.default_rng(options.seed).choice(len(listed), 5, replace=False)
    table = Coordinates.from_arrays(listed[examples], VOXEL_A, tomogram=field.tomogram, label=["ribosome"] * 5)
    by_examples = locate(field, references_from_positions([(field, table)], diameter_A=DIAMETER_A), everything)
    others = np.delete(listed, examples, axis=0)
    blobs = find_blobs(-source.slab(0, source.shape[0]), 1.5, 4.0, DIAMETER_A * 0.6 / VOXEL_A, 1000)
    ways = (("structure 4v6x", by_structure.xyz, listed), ("five examples", by_examples.xyz, others))
    for tolerance in TOLERANCES_A:
        print(
            f"recall of {len(listed)} listed ribosomes within {tolerance:g} A, seed {options.seed}, model {model.hash}"
        )
        print(f"{'picks':16}" + "".join(f"{c:8d}" for c in COUNTS))
        for name, xyz, true in (*ways, ("blob finder", blobs, listed)):
            recall = recall_by_number(xyz, true, tolerance / VOXEL_A)
            print(f"{name:16}" + "".join(f"{recall[min(c, len(recall)) - 1]:8.2f}" for c in COUNTS))
    shown = by_structure.select(np.argsort(-by_structure.score)[:200])
    truth = Coordinates.from_arrays(
        listed,
        VOXEL_A,
        shape=source.shape,
        tomogram=field.tomogram,
        label=["ribosome"] * len(listed),
        diameter_A=[DIAMETER_A] * len(listed),
    )
    slices = [int(z) for z in np.quantile(listed[:, 2], (0.3, 0.7))]
    picks_picture(
        source,
        shown,
        options.out / "lamella_picks.png",
        truth,
        slices=slices,
        thickness=3,
        title="first 200 picks, reference from the structure",
    )
    print(options.out / "lamella_picks.png")


def read_listed(path: Path) -> np.ndarray:
    """(n, 3) x, y, z in voxels."""
    with open(path, newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns = [next(c for c in rows[0] if c.lower().startswith(axis) and "vox" in c.lower()) for axis in "xyz"]
    return np.array([[float(r[c]) for c in columns] for r in rows])


if __name__ == "__main__":
    main()
