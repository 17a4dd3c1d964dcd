"""From a mini-tomogram to labelled windows: particles, and the negatives that matter.

Windows are named by their first voxel. Shared windows lie on the dense grid (design of the network: trunk position =
voxel / 2), so that all windows of a mini-tomogram share one pass of the trunk; single windows lie anywhere. Background
windows are of three kinds: anywhere away from all particles (ice), centred on furniture (gold, membranes, filaments:
listed without a species), and close beside a particle's centre, so that the similarity peaks there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from tomotwin_core.model.network import HALF_WINDOW, STRIDE, WINDOW
from tomotwin_core.training.augmentation import shifts
from tomotwin_core.training.settings import AugmentationSettings, BatchSettings
from tomotwin_core.training.stream import MiniTomogram

BACKGROUND = -1
# Zeros (the mean) around a mini-tomogram, in voxels (z, y, x): particles near the faces of a tomogram are seen like
# this when it is embedded.
_MARGIN = (16, 8, 8)
# A pick counts up to a quarter of the diameter away; from there on a window is not its particle's any more.
_OFF_CENTRE_A = 50.0


@dataclass(frozen=True)
class PartlyListed(MiniTomogram):
    """A mini-tomogram in which there may be more particles than are listed."""


@dataclass(frozen=True)
class WindowBatch:
    """volume float32 [z, y, x] with margins; corners (n, 3) z, y, x of the windows' first voxels, in trunk positions
    (voxel / 2) where windows are shared, else in voxels; label (n,) species or BACKGROUND; usual as its mini-tomogram."""

    volume: np.ndarray
    corners: np.ndarray
    label: np.ndarray
    usual: bool = True


def window_batch(
    tomogram: MiniTomogram,
    rng: np.random.Generator,
    settings: BatchSettings | None = None,
    augmentation: AugmentationSettings | None = None,
) -> WindowBatch:
    """Draw the windows of one step from a mini-tomogram: particles, with their centres within a voxel and a half per
    axis of the windows' (single windows: half a voxel and the shift), and backgrounds."""
    settings = settings or BatchSettings()
    shared = settings.windows == "shared"
    stride = STRIDE if shared else 1
    volume, xyz = turned_about_axes(tomogram.volume, tomogram.xyz, int(rng.integers(4)))
    odd = rng.integers(0, 2, 3)  # moves the stride-2 grid against the particles
    margin = [(m + int(o), m) for m, o in zip(_MARGIN, odd, strict=True)]
    volume = np.pad(volume, margin)
    grid = (np.array(volume.shape) - WINDOW) // stride + 1
    # The centre of the window with corner i lies at voxel stride * i + 18 of the padded volume.
    centres = (xyz[:, ::-1] + [m[0] for m in margin] - HALF_WINDOW) / stride
    if shared:
        corner = np.floor(centres + rng.uniform(0.25, 0.75, centres.shape)).astype(int)
    else:
        corner = np.round(centres).astype(int) + shifts(len(centres), augmentation or AugmentationSettings(), rng)
    tolerance = np.maximum(_OFF_CENTRE_A, tomogram.diameter_A / 4 + 20.0) / 10.0 / stride
    everything_listed = not isinstance(tomogram, PartlyListed)
    # Furniture goes in too, its label is that of background: else no window with gold in its middle is ever a negative.
    inside = np.flatnonzero(((corner >= 0) & (corner < grid)).all(1))
    chosen = _at_most(inside, tomogram.label[inside], settings, rng)
    anywhere = rng.integers(0, grid, (6 * settings.anywhere * everything_listed, 3))
    seeds = rng.integers(len(centres), size=4 * settings.beside) if len(centres) else np.zeros(0, int)
    direction = rng.normal(size=(len(seeds), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    reach = tolerance[seeds] * rng.uniform(1.0, 1.7, len(seeds))
    if not everything_listed:
        # Within a diameter of a particle no other particle's centre can lie.
        own = tomogram.diameter_A[seeds] / 10.0 / stride
        reach = np.minimum(reach, np.maximum(own, 1.01 * tolerance[seeds]))
    beside = np.round(centres[seeds] + direction * reach[:, None]).astype(int)
    corners = [corner[chosen]]
    for candidates, wanted in ((anywhere, settings.anywhere), (beside, settings.beside)):
        candidates = candidates[((candidates >= 0) & (candidates < grid)).all(1)]
        corners.append(candidates[_away(candidates, centres, tolerance)][:wanted])
    label = np.concatenate([tomogram.label[chosen], np.full(len(corners[1]) + len(corners[2]), BACKGROUND)])
    return WindowBatch(np.ascontiguousarray(volume, np.float32), np.concatenate(corners), label, tomogram.usual)


def turned_about_axes(volume: np.ndarray, xyz: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
    """One of the four half turns (none, about x, y or z) that keep both the missing wedge and the handedness."""
    flips = [(), (0, 1), (0, 2), (1, 2)][which]  # array axes z, y, x
    xyz = xyz.copy()
    for axis in flips:
        xyz[:, 2 - axis] = volume.shape[axis] - 1 - xyz[:, 2 - axis]
    return np.flip(volume, flips) if flips else volume, xyz


def _at_most(index: np.ndarray, label: np.ndarray, settings: BatchSettings, rng: np.random.Generator) -> np.ndarray:
    """Of each species, and of the furniture, at most as many as the settings say, drawn at random."""
    kept = []
    for species in np.unique(label):
        own = index[label == species]
        most = settings.furniture if species == BACKGROUND else settings.instances
        kept.append(rng.choice(own, most, replace=False) if 0 < most < len(own) else own)
    return np.sort(np.concatenate(kept)) if kept else index


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
