"""80S ribosomes in a real in-situ lamella: recall of the listed ones against the number of picks, beside a blob
finder.

Data (--data DIR): insitu_9.mrc.gz (128 x 256 x 256 voxels of 31.36 A, protein dark) and insitu_9_ribosomes.csv (55
positions, x, y, z in A and in voxels), public EMPIAR data binned 4 times. The list is incomplete, so it measures
recall, not precision. Two references: the ribosome's structure, simulated, and five of the listed positions (which
then do not count). Each is located in all of the tomogram, and within the specimen alone as --auto-slab finds it; so is the
blob finder. Beside them what `tomotwin cluster` proposes without any reference: in which clusters the listed ones lie,
and the recall of the first three species that are proposed.

By default a part of 64 x 80 x 160 voxels (z, y, x), through which the specimen runs aslant and which holds 23 of
the 55, is embedded; --whole takes everything (some five times as long as a tomogram of 512 x 512 x 200 voxels at 10 A).

Run: python benchmarks/real_lamella.py --data DIR --out DIR
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from tomotwin_core.cli.main import main as tomotwin
from tomotwin_core.clustering.output import CLUSTERS, REFERENCES
from tomotwin_core.clustering.scene import load_scene
from tomotwin_core.coordinates import Coordinates
from tomotwin_core.embedding import EmbeddingField, embed_to_disk
from tomotwin_core.evaluation import find_blobs, recall_by_number
from tomotwin_core.evaluation.pictures import picks_picture
from tomotwin_core.model import load_model
from tomotwin_core.picking import (
    LocationSettings,
    ReferenceSet,
    ReferenceSettings,
    load_references,
    locate,
    references_from_densities,
    references_from_positions,
)
from tomotwin_core.regions import Region, RegionSettings, find_region, named_region
from tomotwin_core.regions.slab import Slab
from tomotwin_core.simulation import Acquisition
from tomotwin_core.structures import load_density
from tomotwin_core.tomogram import TomogramSource, open_tomogram, write_mrc
from tomotwin_core.verification import locate_verified

VOXEL_A, DIAMETER_A = 31.36, 270.0
# Half the radius, and twice that: the listed positions are themselves off by up to a voxel, most in z.
TOLERANCES_A = (67.5, 135.0)
# A candidate within a voxel in each direction and as much again is that of a listed position.
NEAR_A = 100.0
COUNTS = (25, 50, 100, 200, 400, 800)
# Species proposed de novo whose picks are judged.
_PROPOSED = 3
PART = ((36, 100), (40, 120), (48, 208))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="released")
    parser.add_argument("--whole", action="store_true", help="not only a part of it")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    whole = open_tomogram(options.data / "insitu_9.mrc.gz", VOXEL_A)
    slab = find_region(whole, RegionSettings(auto_slab=True)).slab
    low, high = (np.zeros(3, int), np.array(whole.shape)) if options.whole else np.transpose(PART)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    name = "whole" if options.whole else "part"
    write_mrc(options.out / f"{name}.mrc", whole.slab(low[0], high[0])[:, box[1], box[2]], VOXEL_A)
    source = open_tomogram(options.out / f"{name}.mrc")
    listed = read_listed(options.data / "insitu_9_ribosomes.csv")
    listed = listed[((listed[:, ::-1] >= low) & (listed[:, ::-1] < high)).all(1)] - low[::-1]
    model = load_model(options.model)
    field = embed_to_disk(source, model, options.out / f"{name}_{model.hash}.zarr", contrast="dark")
    everything = LocationSettings(min_score=-1.0)
    references = references_from_densities(
        {"ribosome": load_density("library:4v6x")},
        model,
        Acquisition(),
        ReferenceSettings(seed=options.seed, voxel_size_A=VOXEL_A),
    )
    examples = np.random.default_rng(options.seed).choice(len(listed), 5, replace=False)
    table = Coordinates.from_arrays(listed[examples], VOXEL_A, tomogram=field.tomogram, label=["ribosome"] * 5)
    from_examples = references_from_positions([(field, table)], diameter_A=DIAMETER_A)
    others = np.delete(listed, examples, axis=0)
    found = de_novo(options, field, listed)
    blobs = find_blobs(-source.slab(0, source.shape[0]), 1.5, 4.0, DIAMETER_A * 0.6 / VOXEL_A, 3000)
    specimen = moved_region(slab, low, source)
    print(
        f"the specimen is {specimen.share():.0%} of this and holds {specimen.contains(listed).mean():.0%} of the list"
    )
    ways = []
    for where, region in (("all", None), ("specimen", specimen)):
        by_structure = locate(field, references, everything, region)
        by_examples = locate(field, from_examples, everything, region).xyz
        blobs_there = blobs if region is None else blobs[region.contains(blobs)]
        verified = locate_verified(field, source, references, everything, None, region)
        ways += [
            (f"structure, {where}", by_structure.xyz, listed),
            (f"structure, verified, {where}", verified.xyz, listed),
            (f"five examples, {where}", by_examples, others),
            (f"blob finder, {where}", blobs_there, listed),
        ]
        if found is not None:
            peaks = locate(field, found, everything, region)
            ways += [
                (f"{target.name}, {where}", peaks.xyz[peaks.label == target.name], listed)
                for target in found.targets[:_PROPOSED]
            ]
    for tolerance in TOLERANCES_A:
        print(
            f"recall of {len(listed)} listed ribosomes within {tolerance:g} A, seed {options.seed}, model {model.hash}"
        )
        print(f"{'picks':30}" + "".join(f"{c:8d}" for c in COUNTS))
        for way, xyz, true in ways:
            recall = recall_by_number(xyz, true, tolerance / VOXEL_A)
            print(f"{way:30}" + "".join(f"{recall[min(c, len(recall)) - 1]:8.2f}" for c in COUNTS))
    pictures(options, source, listed, locate(field, from_examples, everything, specimen), by_structure)


def de_novo(options: argparse.Namespace, field: EmbeddingField, listed: np.ndarray) -> ReferenceSet | None:
    """Cluster, say where the listed ones are, and give the species proposed as references; None if none is."""
    out = options.out / "clusters"
    if tomotwin(["cluster", str(field.path), "--out", str(out), "--model", options.model]):
        raise SystemExit("tomotwin cluster failed")
    clusters = json.loads((out / CLUSTERS).read_text())["clusters"]
    scene = load_scene(out)
    of = np.full(len(scene), -1)
    for index, cluster in enumerate(clusters):
        of[scene.rows(cluster["members"])] = index
    # The candidate of a listed one: that of the highest particleness near it.
    near = cKDTree(scene.candidates.xyz_A).query_ball_point(listed * VOXEL_A, NEAR_A)
    best = [max(rows, key=lambda row: scene.candidates.particleness[row]) for rows in near if rows]
    print(f"{len(best)} of {len(listed)} listed ribosomes have a candidate within {NEAR_A:g} A; they lie in")
    for index, count in Counter(of[best].tolist()).most_common():
        one = clusters[index] if index >= 0 else {"name": "no cluster", "kind": "", "count": int((of < 0).sum()), "nearest": []}
        alike = ", ".join(f"{n['name']} {n['score']:.2f}" for n in one["nearest"])
        print(f"  {count:3d} in {one['name']:12}{one['kind']:10}of {one['count']:5d}  {alike}")
    references = load_references(out / REFERENCES)
    return references if references.targets else None


def moved_region(slab: Slab | None, low: np.ndarray, source: TomogramSource) -> Region:
    """The specimen of the whole tomogram in the part of it that starts at `low` (z, y, x), as a mask of the part."""
    if slab is None:
        raise SystemExit("no specimen was found in the tomogram")
    z, y, x = np.indices(source.shape) + low[:, None, None, None]
    bottom, top = slab.surfaces_A(y[0] * VOXEL_A, x[0] * VOXEL_A)
    inside = (z * VOXEL_A >= bottom) & (z * VOXEL_A <= top)
    mask = source.path.with_name(f"{source.name}_specimen.mrc")
    write_mrc(mask, inside.astype(np.float32), VOXEL_A)
    return named_region(source.name, source.shape, VOXEL_A, RegionSettings(mask=mask))


def pictures(
    options: argparse.Namespace,
    source: TomogramSource,
    listed: np.ndarray,
    examples: Coordinates,
    structure: Coordinates,
) -> None:
    truth = Coordinates.from_arrays(
        listed,
        VOXEL_A,
        shape=source.shape,
        tomogram=source.name,
        label=["ribosome"] * len(listed),
        diameter_A=[DIAMETER_A] * len(listed),
    )
    slices = [int(z) for z in np.quantile(listed[:, 2], (0.3, 0.7))]
    for name, peaks in (("examples", examples), ("structure", structure)):
        best = peaks.select(np.argsort(-peaks.score)[:100])
        path = options.out / f"lamella_{name}.png"
        title = f"first 100 picks within the specimen, reference from {name}"
        picks_picture(source, best, path, truth, slices=slices, thickness=3, title=title)
        print(path)


def read_listed(path: Path) -> np.ndarray:
    """(n, 3) x, y, z in voxels."""
    with open(path, newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns = [next(c for c in rows[0] if c.lower().startswith(axis) and "vox" in c.lower()) for axis in "xyz"]
    return np.array([[float(r[c]) for c in columns] for r in rows])


if __name__ == "__main__":
    main()
