"""Time and peak memory of locating targets in an embedded tomogram: `tomotwin locate` in a process of its own.

The embedding field is synthetic (unit vectors that vary smoothly, as neighbouring embeddings do, and copies of every
target at random places); what is found of these copies is printed too, so that speed is not bought with peaks.

Run: python benchmarks/locating.py
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from tomotwin_core.coordinates import read_coordinates
from tomotwin_core.embedding.dense import TILE_CPU, even_part, grid_shape
from tomotwin_core.embedding.field import _CHUNK_PLANES, _FORMAT
from tomotwin_core.picking import ReferenceSet, Target

SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(200, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--references", type=int, default=12)
    parser.add_argument("--copies", type=int, default=150, help="of each target (default: 150)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prototypes = rng.normal(size=(options.references, SIZE)).astype(np.float32)
        prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
        grid = grid_shape(tuple(options.shape))
        places = rng.uniform(5, np.array(grid) - 5, (options.references * options.copies, 3))
        write_field(folder / "tomo.zarr", tuple(options.shape), prototypes, places, rng)
        targets = tuple(Target(f"t{i:02d}", p[None], 100.0 + 15.0 * i) for i, p in enumerate(prototypes))
        ReferenceSet(targets, "synthetic").save(folder / "refs.safetensors")
        command = [sys.executable, "-m", "tomotwin_core.cli.main", "locate", str(folder / "tomo.zarr")]
        command += ["--references", str(folder / "refs.safetensors"), "--out", str(folder)]
        start = time.perf_counter()
        threads = {k: str(options.threads) for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        subprocess.run(command, check=True, env={**os.environ, **threads})
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        memory, processor = used.ru_maxrss / 2**20, used.ru_utime + used.ru_stime
        found = read_coordinates(folder / "tomo_peaks.star")
        near, _ = cKDTree(found.xyz[:, ::-1] / 2).query(places)
        z, y, x = options.shape
        print(
            f"{x} x {y} x {z}, {options.references} references, {options.threads} threads: {seconds:.0f} s "
            f"({processor:.0f} s of processor time), {memory:.2f} GB; "
            f"{len(found)} peaks, {np.mean(near < 0.5):.1%} of {len(places)} planted copies within half a step"
        )


def write_field(
    path: Path, shape: tuple[int, ...], prototypes: np.ndarray, places: np.ndarray, rng: np.random.Generator
) -> None:
    """As `tomotwin embed` would have written it, a slab of planes at a time."""
    depth, height, width = grid_shape(shape)
    tile = [even_part(n, TILE_CPU) for n in (depth, height, width)]
    group = zarr.open_group(str(path), mode="w")
    group.attrs.update(
        {
            "format": _FORMAT, "tomogram": "tomo", "voxel_size_A": 10.0, "shape": list(shape), "contrast": "dark",
            "model_hash": "synthetic", "stride": 2, "model_voxel_size_A": 10.0,
        }
    )  # fmt: skip
    chunks = (even_part(tile[0], _CHUNK_PLANES), tile[1], tile[2])
    embeddings = group.create_array(
        "embeddings", shape=(depth, height, width, SIZE), chunks=(*chunks, SIZE), dtype="float16", compressors=None
    )
    group.create_array("particleness", shape=(depth, height, width), chunks=chunks, dtype="float16", compressors=None)
    target = np.repeat(np.arange(len(prototypes)), len(places) // len(prototypes))
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    for z in range(depth):
        smooth = rng.normal(size=(height, width, SIZE)).astype(np.float32)
        plane = gaussian_filter(smooth, (1.0, 1.0, 0.0)) * 3.5
        for index in np.flatnonzero(np.abs(places[:, 0] - z) < 4):
            pz, py, px = places[index]
            box = np.s_[max(int(py) - 4, 0) : int(py) + 6, max(int(px) - 4, 0) : int(px) + 6]
            square = (pz - z) ** 2 + (y[box] - py) ** 2 + (x[box] - px) ** 2
            weight = np.exp(-square / 4.5)[..., None]
            plane[box] = (1 - weight) * plane[box] + weight * 6 * prototypes[target[index]]
        embeddings[z] = (plane / np.linalg.norm(plane, axis=-1, keepdims=True)).astype(np.float16)


if __name__ == "__main__":
    main()
