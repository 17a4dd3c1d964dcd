"""How long `tomotwin cluster` takes on one and on ten large tomograms: the part `scale` of clustering.py."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tomotwin_core.clustering.scene import load_scene


def scale(options: argparse.Namespace) -> None:
    from locating import write_field

    rng, folder = np.random.default_rng(options.seed), options.work / "scale"
    first = folder / "tomo_00.zarr"
    if not first.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        prototypes = rng.normal(size=(12, 32)).astype(np.float32)
        prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
        write_field(first, (200, 512, 512), prototypes, rng.uniform(5, (95, 251, 251), (12 * 150, 3)), rng)
    timed("synthetic, without the library", under_names([first], folder), folder, "--no-library")
    simulated = sorted((options.work / "emb").glob("heldout_full_*.zarr"))
    if simulated:
        folder = options.work / "scale_full"
        timed("simulated, with the library", under_names(simulated, folder), folder, "--model", options.model)


def under_names(sources: list[Path], folder: Path, count: int = 10) -> list[Path]:
    """The same embeddings, one after the other, under ten names."""
    named = []
    for number in range(count):
        source, other = sources[number % len(sources)], folder / f"tomo_{number:02d}.zarr"
        if not other.is_dir():
            other.mkdir(parents=True)
            for part in ("embeddings", "particleness"):
                (other / part).symlink_to((source / part).resolve())
            attributes = json.loads((source / "zarr.json").read_text())
            attributes["attributes"]["tomogram"] = other.stem
            attributes.pop("consolidated_metadata", None)
            (other / "zarr.json").write_text(json.dumps(attributes))
        named.append(other)
    return named


def timed(what: str, fields: list[Path], folder: Path, *settings: str) -> None:
    """Print what one and all of these tomograms take."""
    for count in (1, len(fields)):
        out = folder / f"out_{count}"
        command = [sys.executable, "-m", "tomotwin_core.cli.main", "cluster", *map(str, fields[:count]), "--out", str(out), *settings]
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            command,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
            stdout=subprocess.DEVNULL,
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        n = len(load_scene(out))
        # The largest of all children so far: the smaller calls come first.
        print(f"{what}, {count} tomograms: {n} candidates, {time.perf_counter() - start:.0f} s, {processor:.0f} s of processor "
              f"time, {used.ru_maxrss / 2**20:.2f} GB at most")  # fmt: skip
