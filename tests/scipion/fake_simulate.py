"""`tomotwin simulate` of the stand-in for the engine: one particle of each species.

The k-th one of tomogram n lies at `planted(k, n)`, turned by
`turned(k)`, in a tomogram as above. Names that begin with "broken" fail at the second tomogram as long as no file
"mended" lies beside its folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
from fake_files import COLUMNS, DIAMETER_A, fail, write, write_mrc

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
DOSE_PER_TILT = 3.0


def planted(kind: int, number: int) -> tuple[int, int, int]:
    """x, y, z of the only particle of the kind-th species in the number-th tomogram."""
    return 4 + 3 * kind + number, 5 + 2 * kind, 3 + kind


def turned(kind: int) -> tuple[float, float, float]:
    """Its rot, tilt and psi in degrees."""
    return 10.0 * kind, 20.0 * kind, 30.0 * kind


def simulate(options: argparse.Namespace) -> None:
    settings = tomllib.loads(Path(options.inputs[0]).read_text())
    sample, tilts = settings["sample"], settings.get("tilts", {})
    angles = np.arange(tilts.get("tilt_min_deg", -60), tilts.get("tilt_max_deg", 60) + 1, tilts.get("tilt_step_deg", 3))
    names = [Path(source).name.split(".")[0] for source in settings["species"]]
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    for number in range(options.first, options.first + int(options.tomograms[0])):
        if options.prefix.startswith("broken") and number == 2 and not (out.parent / "mended").exists():
            sys.exit(fail("tomogram 2 cannot be made."))
        name = f"{options.prefix}_{number:02d}"
        volume, rows = np.zeros(sample["shape"]), []
        for kind, species in enumerate(names, start=1):
            x, y, z = planted(kind, number)
            volume[z, y, x] = -kind
            rows.append((name, x, y, z, species, "nan", DIAMETER_A + kind, *turned(kind)))
        write_mrc(out / f"{name}.mrc", volume, sample["voxel_size_A"])
        if options.noise_free:
            write_mrc(out / f"{name}_noisefree.mrc", volume, sample["voxel_size_A"])
        if options.labels:
            write_mrc(out / f"{name}_labels.mrc", -volume, sample["voxel_size_A"])
        if options.tilt_series:
            write_tilt_series(out / f"{name}.st", np.zeros((len(angles), *volume.shape[1:])), angles, sample)
        write(out / f"{name}_truth.star", rows, COLUMNS + ANGLES)
        for species in names if options.references else ():
            write_mrc(out / "references" / f"{species}.mrc", np.ones((6, 6, 6)), sample["voxel_size_A"])
    acquisition = {"cs_mm": 2.7, "amplitude_contrast": 0.08, "ctf_corrected": False}
    crowding = {"occupied": 0.2 + number / 100, "concentration_g_per_L": 100.0 + number}
    made = {"acquisition": acquisition, "crowding": crowding}
    record = {"species_kDa": dict.fromkeys(names, 100.0), "tomograms": {name: made}}
    (out / "simulation.json").write_text(json.dumps(record))


def write_tilt_series(path: Path, stack: np.ndarray, angles: np.ndarray, sample: dict) -> None:
    """The stack and its mdoc, tilts in rising order; exposed dose-symmetrically."""
    write_mrc(path, stack, sample["voxel_size_A"])
    order = np.argsort(np.argsort(np.abs(angles - 0.1)))
    lines = [f"PixelSpacing = {sample['voxel_size_A']}", "Voltage = 300", f"ImageFile = {path.name}", ""]
    lines += ["[T =     Tilt axis angle = 0.001, binning = 1  spot = 1  camera = 0]", ""]
    for index, angle in enumerate(angles):
        when = f"01-Jan-26  {order[index] // 60:02d}:{order[index] % 60:02d}:00"
        lines += [f"[ZValue = {index}]", f"TiltAngle = {angle:.2f}", f"ExposureDose = {DOSE_PER_TILT}"]
        lines += [f"PriorRecordDose = {order[index] * DOSE_PER_TILT}"]
        lines += ["Magnification = 10000", f"DateTime = {when}", ""]
    Path(f"{path}.mdoc").write_text("\n".join(lines))
