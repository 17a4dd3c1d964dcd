"""Verification at the paper's size: time, memory, F1, and how well orientations and centres are found.

    tomotwin simulate --out DATA --tomograms 1 --species A,B,... --copies 110 --shape 200 512 512 --voxel-size 10
    python benchmarks/verification.py DATA

DATA is a folder of `tomotwin simulate`. Its first tomogram is verified with the structures of all its species at the places of
coarse matching alone (no embedding takes part, which costs what benchmarks/speed.py says). Orientations are compared by
what counts for an average and does not mind a molecule's symmetry, the overlap: the correlation of the molecule turned as it was found and as it
lies, at 30 A; beside it the angle between the two, of which symmetric molecules have more than one that is right.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from template_matching import acquisition_of

from tomotwin_core.coordinates import Coordinates, read_coordinates
from tomotwin_core.evaluation import evaluate, match, tolerance_A
from tomotwin_core.picking import pick
from tomotwin_core.structures.library import load_library
from tomotwin_core.subtomograms.templates import Imager
from tomotwin_core.tomogram import open_tomogram
from tomotwin_core.verification import verify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of `tomotwin simulate`")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    record = json.loads((options.data / "simulation.json").read_text())["tomograms"]
    name = sorted(record)[0]
    truth, library = read_coordinates(options.data / f"{name}_truth.star"), load_library()
    densities = {str(s): library.density(str(s)) for s in np.unique(truth.label)}
    acquisition, contrast = acquisition_of(record[name]), record[name]["delivery"]["contrast"]
    source = open_tomogram(options.data / f"{name}.mrc")
    nowhere = Coordinates.from_arrays(np.empty((0, 3)), source.voxel_size_A, source.name, source.shape)
    start = time.perf_counter(), time.process_time()
    peaks = verify(source, nowhere, densities, acquisition, contrast=contrast, device=options.device)
    clock, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    picks, _ = pick(peaks)
    print(f"{'species':10}{'kDa':>7}{'true':>6}{'F1':>7}{'(best)':>8}{'off A':>7}{'overlap':>9}{'angle':>7}")
    for score in sorted(
        evaluate(picks, truth, peaks, labels=list(densities)), key=lambda s: densities[s.label].mass_kDa
    ):
        own, true = (table.select(table.label == score.label) for table in (picks, truth))
        density = densities[score.label]
        limit = tolerance_A(density.diameter_A)
        i, j = match(own.xyz * source.voxel_size_A, true.xyz * source.voxel_size_A, limit)
        overlap, angle = np.nan, np.nan
        if len(i):
            found, lies = np.asarray(own.rotation)[i], np.asarray(true.rotation)[j]
            imager = Imager.of(density, 10.0, acquisition, low_pass_A=30.0)
            overlap = float(torch.median((imager.templates(found) * imager.templates(lies)).sum(1)))
            angle = float(np.degrees(np.median(Rotation.from_matrix(found.transpose(0, 2, 1) @ lies).magnitude())))
        print(
            f"{score.label:10}{density.mass_kDa:7.0f}{score.n_true:6d}{score.f1:7.2f}{score.best_f1:8.2f}"
            f"{score.median_distance_A:7.1f}{overlap:9.2f}{angle:7.0f}"
        )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    shape = " x ".join(map(str, source.shape[::-1]))
    print(
        f"{shape} voxels of {source.voxel_size_A:g} A, {len(densities)} targets: {clock:.0f} s by the clock, {processor:.0f} s of processor, {memory:.1f} GB"
    )


if __name__ == "__main__":
    main()
