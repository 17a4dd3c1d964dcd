"""Files as the engine writes them, for the stand-in for it."""

from __future__ import annotations

import json
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


def write_header(path: str, key: str, values: dict) -> None:
    header = json.dumps({"__metadata__": {key: json.dumps(values)}}).encode()
    Path(path).write_bytes(struct.pack("<Q", len(header)) + header)


def write_mrc(path: Path, volume: np.ndarray, voxel_size: float) -> None:
    path.parent.mkdir(exist_ok=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(volume.astype(np.float32))
        file.voxel_size = voxel_size


def write(path: Path, rows: list, columns: tuple[str, ...] = COLUMNS) -> None:
    lines = ["data_tomotwin", "", "_tomotwinSettings  '{\"a\": 1}'", "", "data_particles", "", "loop_"]
    lines += [f"_{column} #{number}" for number, column in enumerate(columns, start=1)]
    lines += ["  ".join(str(value) for value in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def fail(sentence: str) -> int:
    print(f"tomotwin: error: {sentence}", file=sys.stderr)
    return 2
