"""How long `tomotwin cluster` takes on one and on ten large tomograms: the part `scale` of clustering.py."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

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
    for number in range(1, 10):  # the same field under other names
        other = folder / f"tomo_{number:02d}.zarr"
        if not other.is_dir():
            other.mkdir()
            for part in ("embeddings", "particleness"):
                (other / part).symlink_to(first / part)
            attributes = json.loads((first / "zarr.json").read_text())
            attributes["attributes"]["tomogram"] = other.stem
            attributes.pop("consolidated_metadata", None)
            (other / "zarr.json").write_text(json.dumps(attributes))
    for count in (1, 10):
        fields = [str(folder / f"tomo_{i:02d}.zarr") for i in range(count)]
        command = [
            sys.executable,
            "-m",
            "tomotwin_core.cli.main",
            "cluster",
            *fields,
            "--out",
            str(folder / f"out_{count}"),
            "--no-library",
        ]
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            command,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
            stdout=subprocess.DEVNULL,
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        n = len(load_scene(folder / f"out_{count}"))
        print(f"{count} tomograms: {n} candidates, {time.perf_counter() - start:.0f} s, {processor:.0f} s of processor time, "
              f"{used.ru_maxrss / 2**20:.2f} GB at most")  # fmt: skip
