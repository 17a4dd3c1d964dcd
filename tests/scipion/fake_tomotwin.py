#!/usr/bin/env python3
"""A stand-in for the command ``tomotwin``: same command line and files, no network, instant.

It "finds" what a test planted: in a tomogram of zeros, the voxel of value -k is a particle of the k-th
reference. The n-th particle of a tomogram scores 0.99 - n/100. An all-constant volume is refused with exit code 2,
as the engine does. Every call is appended as a JSON line to the file that FAKE_TOMOTWIN_LOG names.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
from pathlib import Path

import mrcfile
import numpy as np

COLUMNS = (
    "rlnTomoName",
    "rlnCoordinateX",
    "rlnCoordinateY",
    "rlnCoordinateZ",
    "tomotwinLabel",
    "tomotwinScore",
    "tomotwinDiameterAngst",
)
DIAMETER_A = 100.0
AUTOMATIC_THRESHOLD = 0.5


def embed(options: argparse.Namespace) -> None:
    for tomogram in options.inputs:
        with mrcfile.open(tomogram, permissive=True) as file:
            volume = np.array(file.data)
        if volume.min() == volume.max():
            sys.exit(fail(f"{tomogram} is constant: there is nothing in it."))
        z, y, x = np.nonzero(volume)
        particles = [[int(a), int(b), int(c), int(-volume[c, b, a])] for a, b, c in zip(x, y, z, strict=True)]
        folder = Path(options.out, Path(tomogram).stem + ".zarr")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fake.json").write_text(json.dumps({"particles": particles, "contrast": options.contrast}))


def reference(options: argparse.Namespace) -> None:
    names = []
    for source in options.inputs:
        name, _, path = source.partition("=")
        if not os.path.exists(path):
            sys.exit(fail(f"there is no file {path}."))
        names.append(name)
    diameter = options.diameter or DIAMETER_A
    targets = [{"name": name, "diameter_A": diameter, "threshold": AUTOMATIC_THRESHOLD} for name in names]
    header = json.dumps({"__metadata__": {"references": json.dumps({"targets": targets})}}).encode()
    Path(options.out).write_bytes(struct.pack("<Q", len(header)) + header)


def locate(options: argparse.Namespace) -> None:
    header = json.loads(Path(options.references).read_bytes()[8:])
    targets = json.loads(header["__metadata__"]["references"])["targets"]
    for embedding in options.inputs:
        name = Path(embedding).stem
        rows = []
        particles = json.loads(Path(embedding, "fake.json").read_text())["particles"]
        for number, (x, y, z, kind) in enumerate(particles):
            if kind <= len(targets):
                target = targets[kind - 1]
                rows.append((name, x, y, z, target["name"], 0.99 - number / 100, target["diameter_A"]))
        write(Path(options.out, f"{name}_peaks.star"), rows)


def similarity_map(options: argparse.Namespace) -> None:
    for embedding in options.inputs:
        Path(options.out, f"{Path(embedding).stem}_map.mrc").touch()


def pick(options: argparse.Namespace) -> None:
    threshold = AUTOMATIC_THRESHOLD if options.threshold == "auto" else float(options.threshold)
    for peaks in options.inputs:
        rows = [line.split() for line in Path(peaks).read_text().splitlines() if len(line.split()) == len(COLUMNS)]
        kept = [row for row in rows if float(row[5]) >= threshold]
        write(Path(options.out, Path(peaks).name.replace("_peaks", "_picks")), kept)


def write(path: Path, rows: list) -> None:
    lines = ["data_tomotwin", "", "_tomotwinSettings  '{\"a\": 1}'", "", "data_particles", "", "loop_"]
    lines += [f"_{column} #{number}" for number, column in enumerate(COLUMNS, start=1)]
    lines += ["  ".join(str(value) for value in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def fail(sentence: str) -> int:
    print(f"tomotwin: error: {sentence}", file=sys.stderr)
    return 2


def main() -> None:
    if "FAKE_TOMOTWIN_LOG" in os.environ:
        with open(os.environ["FAKE_TOMOTWIN_LOG"], "a") as file:
            file.write(json.dumps(sys.argv[1:]) + "\n")
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--out", required=True)
    parser.add_argument("--references")
    parser.add_argument("--model")
    parser.add_argument("--voxel-size", type=float)
    parser.add_argument("--contrast", choices=["dark", "bright"])
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--diameter", type=float)
    parser.add_argument("--threshold", default="auto")
    parser.add_argument("--min-score", type=float)
    parser.add_argument("--embedding", action="append", default=[])
    for option in ("--tilt-min", "--tilt-max", "--tilt-step", "--dose", "--tomogram-voxel-size"):
        parser.add_argument(option, type=float)
    parser.add_argument("--defocus", type=float, nargs=2)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    COMMANDS[options.command](options)


COMMANDS = {"embed": embed, "reference": reference, "locate": locate, "map": similarity_map, "pick": pick}

if __name__ == "__main__":
    main()
