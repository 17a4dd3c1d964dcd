"""Windows cut and changed one by one, as the TomoTwin paper does it: rotation about z, voxel dropout, shifts, noise.

A window that is to be turned is cut wider, so that turning brings in what lies beside it rather than nothing.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from tomotwin_core.model.network import WINDOW
from tomotwin_core.training.settings import AugmentationSettings

# How much farther a window's corner reaches in its plane than its side.
_TURNED_MARGIN = math.ceil((WINDOW // 2) * math.sqrt(2)) + 1 - WINDOW // 2


def shifts(count: int, settings: AugmentationSettings, rng: np.random.Generator) -> np.ndarray:
    """Whole-voxel shifts (count, 3), none where chance says so."""
    most = settings.shift_vox
    return rng.integers(-most, most + 1, (count, 3)) * (rng.random((count, 1)) < settings.shift)


def cut_windows(
    volume: torch.Tensor, corners: torch.Tensor, settings: AugmentationSettings, rng: np.random.Generator
) -> torch.Tensor:
    """Windows (n, 1, 37, 37, 37) with their first voxels at corners (n, 3) z, y, x of a volume [z, y, x], each turned
    about z with the probability of `settings.rotation`."""
    margin = _TURNED_MARGIN if settings.rotation else 0
    volume = functional.pad(volume, (margin,) * 4)
    sides = (WINDOW, WINDOW + 2 * margin, WINDOW + 2 * margin)
    z, y, x = (corners[:, i, None] + torch.arange(sides[i], device=volume.device) for i in range(3))
    windows = volume[z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]]
    if not settings.rotation:
        return windows[:, None]
    turned = rng.random(len(corners)) < settings.rotation
    angle = torch.from_numpy(np.where(turned, rng.uniform(0, 2 * np.pi, len(corners)), 0.0)).to(volume)
    return turned_about_z(windows, angle, WINDOW)[:, None]


def turned_about_z(windows: torch.Tensor, angle: torch.Tensor, side: int) -> torch.Tensor:
    """The middle `side` x `side` columns of windows (n, z, y, x), each turned by its angle (n,) in radians from x to y
    about its middle column, by bilinear interpolation."""
    whole = windows.shape[-1]
    axis = torch.arange(side, device=windows.device, dtype=windows.dtype) - (side - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    # The turned window is read at the place that the turn brings there; grid_sample counts from -1 to 1.
    source = torch.stack([cosine * x + sine * y, cosine * y - sine * x], dim=-1) / ((whole - 1) / 2)
    return functional.grid_sample(windows, source, mode="bilinear", padding_mode="border", align_corners=True)


def disturbed(volumes: torch.Tensor, settings: AugmentationSettings, rng: np.random.Generator) -> torch.Tensor:
    """Volumes (n, 1, z, y, x), normalised, with voxels dropped (set to 0, the mean) and noise added, each with its
    probability."""
    if not settings.dropout and not settings.noise:
        return volumes
    count, shape = len(volumes), (-1, 1, 1, 1, 1)
    generator = torch.Generator(device=volumes.device).manual_seed(int(rng.integers(2**62)))
    ratio = rng.uniform(*settings.dropout_ratio, count) * (rng.random(count) < settings.dropout)
    sigma = rng.uniform(0, settings.noise_sigma, count) * (rng.random(count) < settings.noise)
    kept = torch.rand(volumes.shape, generator=generator, device=volumes.device) >= torch.from_numpy(ratio).to(
        volumes
    ).reshape(shape)
    noise = torch.randn(volumes.shape, generator=generator, device=volumes.device)
    return volumes * kept + noise * torch.from_numpy(sigma).to(volumes).reshape(shape)
