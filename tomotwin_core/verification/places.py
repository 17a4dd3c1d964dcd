"""Where a molecule may lie, by matching it coarsely: 20 A and more a voxel, orientations 30 degrees apart.

That takes seconds, asks nothing of the network, and does not mind how the tomogram was treated. It does not decide: of a few
hundred places most are wrong, and nearly all particles from 150 kDa on are among them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tomotwin_core.picking.location import LocationSettings, peaks_of
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.structures.density import Density
from tomotwin_core.tomogram import Specimen, TomogramSource
from tomotwin_core.verification.competition import distinct
from tomotwin_core.verification.matcher import Prepared
from tomotwin_core.verification.template_matching import match_template

COARSE_STEP_DEG = 30.0
# Diameters up to which so many A a voxel are taken: a particle is five to ten voxels wide.
_SIZES = ((150.0, 20.0), (230.0, 25.0), (310.0, 30.0), (np.inf, 40.0))
# Places for every so large a cube of the tomogram (A), at least and at most so many in all.
_CUBE_A, _FEWEST, _MOST = 270.0, 150, 3000
_MEMORY_BYTES = 5e8
# Peaks of the correlation that are looked at for each place that is wanted.
_PEAKS_EACH = 8


def coarse_voxel_size_A(diameter_A: float) -> float:
    """Of the tomogram in which a molecule of this diameter is looked for."""
    return next(size for limit, size in _SIZES if diameter_A <= limit)


def number_of_places(shape: tuple[int, int, int], voxel_size_A: float) -> int:
    """How many places of a tomogram are worth a look, for one molecule."""
    return int(np.clip(np.prod(np.array(shape) * voxel_size_A) / _CUBE_A**3, _FEWEST, _MOST))


def coarse_places(tomogram: Prepared, density: Density, acquisition: Acquisition, count: int) -> NDArray[np.float64]:
    """The `count` best places (n, 3) x, y, z in A from the middle of the first voxel, best first."""
    match = match_template(
        tomogram.volume.cpu().numpy(), tomogram.voxel_size_A, density, acquisition, COARSE_STEP_DEG,
        device=str(tomogram.volume.device), memory_bytes=_MEMORY_BYTES, told=False,
    )  # fmt: skip
    peaks = peaks_of(match.score[..., None], LocationSettings(min_score=0.0, competition=False))
    best = np.argsort(-peaks.score, kind="stable")[: _PEAKS_EACH * count]
    xyz = peaks.zyx[best][:, ::-1] * tomogram.voxel_size_A
    kept = distinct(xyz, peaks.score[best], 0.6 * density.diameter_A)
    return np.ascontiguousarray(xyz[kept[:count]])


def spread_places(source: TomogramSource, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Places (n, 3) x, y, z in A anywhere in the inner four fifths of what is no padding."""
    low, high = np.array(Specimen(source).box, float)[::-1].T
    return (low + rng.uniform(0.1, 0.9, (count, 3)) * (high - 1 - low)) * source.voxel_size_A


def block(tomogram: Prepared, most_voxels: int) -> tuple[Prepared, NDArray[np.float64], float]:
    """A part of a tomogram in its middle, of its full height and no more than so many voxels; where it begins (x, y, z in A);
    and its share of the whole."""
    depth, height, width = tomogram.volume.shape
    side = int(np.sqrt(most_voxels / depth))
    y, x = max((height - side) // 2, 0), max((width - side) // 2, 0)
    part: torch.Tensor = tomogram.volume[:, y : y + side, x : x + side]
    begins = np.array([x, y, 0.0]) * tomogram.voxel_size_A
    return Prepared(part, tomogram.voxel_size_A), begins, part.numel() / tomogram.volume.numel()
