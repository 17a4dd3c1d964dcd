"""From a mini-tomogram to labelled windows: particles, and the negatives that matter.

Windows are named by their corner on the dense grid (design of the network: trunk position = voxel / 2), so that all
windows of a mini-tomogram share one pass of the trunk. Background windows are of three kinds: anywhere away from all
particles (ice, membranes), gold beads, and close beside a particle's centre, so that the similarity peaks there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from tomotwin_core.model.network import HALF_WINDOW, STRIDE, dense_shape
from tomotwin_core.training.stream import MiniTomogram

BACKGROUND = -1
# Zeros (the mean) around a mini-tomogram, in voxels (z, y, x): particles near the faces of a tomogram are seen like
# this when it is embedded.
_MARGIN = (16, 8, 8)
# A pick counts up to a quarter of the diameter away; from there on a window is not its particle's any more.
_OFF_CENTRE_A = 50.0


@dataclass(frozen=True)
class WindowBatch:
    """volume float32 [z, y, x] with margins; corners (n, 3) z, y, x on the dense grid; label (n,) species or BACKGROUND."""

    volume: np.ndarray
    corners: np.ndarray
    label: np.ndarray


def window_batch(
    tomogram: MiniTomogram, rng: np.random.Generator, n_anywhere: int = 60, n_beside: int = 60
) -> WindowBatch:
    """Draw the windows of one step from a mini-tomogram: every particle once, off its centre by up to a voxel and a
    half per axis, and backgrounds."""
    volume, xyz = turned_about_axes(tomogram.volume, tomogram.xyz, int(rng.integers(4)))
    odd = rng.integers(0, 2, 3)  # moves the stride-2 grid against the particles
    margin = [(m + int(o), m) for m, o in zip(_MARGIN, odd, strict=True)]
    volume = np.pad(volume, margin)
    grid = dense_shape(volume.shape)
    # Centre of the window with corner i lies at voxel 2 i + 18 of the padded volume.
    centres = (xyz[:, ::-1] + [m[0] for m in margin] - HALF_WINDOW) / STRIDE
    tolerance = np.maximum(_OFF_CENTRE_A, tomogram.diameter_A / 4 + 20.0) / 10.0 / STRIDE
    corner = np.floor(centres + rng.uniform(0.25, 0.75, centres.shape)).astype(int)
    # Gold goes in too, its label is that of background: else no window with gold in its middle is ever a negative.
    inside = ((corner >= 0) & (corner < grid)).all(1)
    anywhere = rng.integers(0, grid, (6 * n_anywhere, 3))
    seeds = rng.integers(len(centres), size=4 * n_beside) if len(centres) else np.zeros(0, int)
    direction = rng.normal(size=(len(seeds), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    beside = np.round(
        centres[seeds] + direction * (tolerance[seeds] * rng.uniform(1.0, 1.7, len(seeds)))[:, None]
    ).astype(int)
    corners = [corner[inside]]
    for candidates, wanted in ((anywhere, n_anywhere), (beside, n_beside)):
        candidates = candidates[((candidates >= 0) & (candidates < grid)).all(1)]
        corners.append(candidates[_away(candidates, centres, tolerance)][:wanted])
    label = np.concatenate([tomogram.label[inside], np.full(len(corners[1]) + len(corners[2]), BACKGROUND)])
    return WindowBatch(volume, np.concatenate(corners), label)


def turned_about_axes(volume: np.ndarray, xyz: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
    """One of the four half turns (none, about x, y or z) that keep both the missing wedge and the handedness."""
    flips = [(), (0, 1), (0, 2), (1, 2)][which]  # array axes z, y, x
    xyz = xyz.copy()
    for axis in flips:
        xyz[:, 2 - axis] = volume.shape[axis] - 1 - xyz[:, 2 - axis]
    return np.flip(volume, flips) if flips else volume, xyz


def _away(candidates: np.ndarray, centres: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Candidates farther from every centre than that centre's tolerance (all in grid steps)."""
    if not len(centres) or not len(candidates):
        return np.ones(len(candidates), bool)
    reach = float(tolerance.max())
    near = cKDTree(centres).query_ball_point(candidates, reach)
    return np.array(
        [all(np.linalg.norm(candidates[i] - centres[j]) > tolerance[j] for j in hits) for i, hits in enumerate(near)],
        bool,
    )
