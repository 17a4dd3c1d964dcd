"""Two small tomograms with known picks of two targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from tomotwin_view.session import Picks, PicksSession, Tomogram

SHAPE = (20, 30, 40)


def volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


# tomogram, target, x, y, z, score, diameter in A (10 A a voxel), expected FDR
ROWS = [
    (0, 0, 5.0, 6.0, 10.0, 0.5, 80.0, 0.50),
    (0, 1, 20.0, 25.0, 13.0, 0.9, 100.0, 0.00),
    (0, 0, 30.0, 3.0, 1.0, 0.7, 80.0, 0.20),
    (1, 0, 6.0, 7.0, 11.0, 0.6, 90.0, 0.10),
    (1, 1, 9.0, 9.0, 9.0, 0.4, 120.0, 0.40),
    (1, 0, 25.0, 15.0, 10.0, 0.8, 70.0, 0.05),
]


def picks(rows: Any = ROWS, **extra: np.ndarray) -> Picks:
    table = np.array(rows, dtype=float).reshape(-1, 8)
    tomogram, target = table[:, 0].astype(int), table[:, 1].astype(int)
    return Picks(tomogram, target, table[:, 2:5], table[:, 5], table[:, 6], table[:, 7], extra)


def planted(**options: Any) -> PicksSession:
    tomograms = [Tomogram(name, 10.0, SHAPE, lambda i=i: volume(i)) for i, name in enumerate(("TS_a", "TS_b"))]
    return PicksSession(tomograms, ["one", "two"], options.pop("picks", picks()), **options)
