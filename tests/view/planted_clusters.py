"""A folder as `tomotwin cluster` writes it, with planted clusters: two species, a membrane, and what belongs to none.

Run as a command it writes one that is larger and to be looked at: python planted_clusters.py FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np

from tomotwin_view.star import write_tables

SHAPE = (20, 60, 80)
VOXEL_SIZE_A = 10.0
NAMES = ("TS_a", "TS_b")
KINDS = {"cluster_01": "species", "cluster_02": "species", "cluster_03": "membrane", "none": ""}
MIDDLES = {"cluster_01": (0.0, 0.0), "cluster_02": (10.0, 0.0), "cluster_03": (0.0, 10.0), "none": (5.0, 5.0)}
DIAMETERS_A = {"cluster_01": 100.0, "cluster_02": 140.0, "cluster_03": 80.0, "none": 60.0}
LABELS = [
    "rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "tomotwinId", "tomotwinCluster",
    "tomotwinProbability", "tomotwinParticleness", "tomotwinUmapX", "tomotwinUmapY", "tomotwinDiameterAngst",
]  # fmt: skip


def volume(name: str) -> np.ndarray:
    return np.random.default_rng(len(name) + ord(name[-1])).normal(size=SHAPE).astype(np.float32)


def opener(name: str, file: str | None) -> Callable[[], np.ndarray]:
    return lambda: volume(name)


def nowhere(name: str, file: str | None) -> None:
    return None


def write_folder(folder: Path, counts: tuple[int, int, int, int] = (12, 8, 10, 6), seed: int = 1) -> Path:
    """Candidates, clusters and galleries. Ids begin at 100 and do not follow the rows, so that a mix-up shows."""
    rng = np.random.default_rng(seed)
    (folder / "gallery").mkdir(parents=True, exist_ok=True)
    rows, members = [], {}
    total = sum(counts)
    ids = iter((100 + rng.permutation(total)).tolist())
    for cluster, count in zip(KINDS, counts, strict=True):
        members[cluster] = [next(ids) for _ in range(count)]
        for number, identifier in enumerate(members[cluster]):
            xyz = np.round(rng.uniform(4, np.array(SHAPE[::-1]) - 4), 2)
            umap = np.array(MIDDLES[cluster]) + rng.normal(size=2) * (0.7 if cluster != "none" else 2.0)
            row = [NAMES[number % 2], *map(float, xyz), identifier, cluster, 1 - number / 1000 if cluster != "none" else 0.0]
            rows.append([*row, 0.9, *map(float, umap), DIAMETERS_A[cluster]])
    order = rng.permutation(total)
    write_tables(str(folder / "candidates.star"), {"particles": (LABELS, [rows[i] for i in order])})
    facts = {"file": None, "embedding": "x.zarr", "voxel_size_A": VOXEL_SIZE_A, "shape": list(SHAPE)}
    clusters = []
    for cluster, kind in list(KINDS.items())[:3]:
        picture = np.tile(np.linspace(0, 1, 96), (32, 1)) ** (1 + len(clusters))
        picture[:, ::32] = 0
        matplotlib.image.imsave(folder / "gallery" / f"{cluster}.png", picture, cmap="gray")
        clusters.append(
            {
                "name": cluster, "kind": kind, "why": f"{cluster} stands apart.", "count": len(members[cluster]),
                "count_by_tomogram": {name: len(members[cluster][i::2]) for i, name in enumerate(NAMES)},
                "certainty": 0.93, "density_per_um3": 1234.0, "compactness": 0.87, "diameter_A": DIAMETERS_A[cluster],
                "nearest": [{"name": "4v6x", "score": 0.91}, {"name": "1dzl", "score": 0.4}],
                "members": members[cluster], "medoids": members[cluster][:2], "average": None,
                "gallery": f"gallery/{cluster}.png",
            }
        )  # fmt: skip
    content = {"version": 1, "made_by": {}, "tomograms": dict.fromkeys(NAMES, facts), "clusters": clusters}
    (folder / "clusters.json").write_text(json.dumps({**content, "verdict": "2 species and a membrane were found."}))
    return folder


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]), (600, 300, 900, 2500))
