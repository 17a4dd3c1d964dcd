"""Whether a density map can be one of a molecule, molecule bright, and what of it is the molecule.

A subtomogram average or a half map is full of noise, and nobody masks it: taken as it is, the noise at the rim of the box
counts as molecule, which is then as wide as the box. One that comes from a tomogram is dark. Both can be seen in the map once
it is smoothed, as can a map that has nothing in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomotwin_core.errors import UserError
from tomotwin_core.remarks import remark

# Wider than this is no map of a molecule but a tomogram, A.
WIDEST_BOX_A = 3000.0
# Standard deviation (A, voxels at least) of the smoothing in which molecule and noise are told apart.
_SMOOTH_A, _SMOOTH_VOX = 8.0, 1.2
# Of the smoothed maximum, which is surely molecule, and how far around it weaker density belongs to it (A).
_CORE, _AROUND_A = 0.25, 12.0
# From this share of the maximum on noise outside changes what the molecule is taken for.
_NOISY = 0.035
# Dark against bright extremes: from which ratio on it is doubtful, and from which it is told to be dark.
_DOUBTFUL, _DARK = 1.1, 2.0
# A map of noise is no more lopsided than that in values and extremes, which lie no further out than that (robust deviations).
_LEAST_SKEW, _LEAST_SIDED, _LEAST_PEAK = 0.3, 0.5, 6.0
# A ball's spherical average explains that much of it, out to so much of its radius, and in its middle it is as dense as
# anywhere; of the 291 molecules of the library, the solid ones reach 0.971.
_BALL_ALIKE, _BALL_REACH, _SOLID = 0.975, 1.2, 0.8
# What stands out must have the volume of a small protein at least, A^3.
_LEAST_VOLUME_A3 = 8000.0


def require_molecule_sized(path: Path | str, shape: tuple[int, int, int], voxel_size_A: float) -> None:
    """A `UserError` for a box that is far wider than any molecule."""
    widest = max(shape) * voxel_size_A
    if widest > WIDEST_BOX_A:
        raise UserError(
            f"{path} is {widest:.0f} A wide, which is no map of one molecule: give a map of the molecule alone."
        )


def judged_map(path: Path | str, volume: NDArray[np.float32], voxel_size_A: float) -> NDArray[np.float32]:
    """The map [z, y, x], molecule bright, without noise around the molecule where there is much of it.

    Raises
    ------
    UserError
        Where the molecule is dark in it, nothing stands out of the noise, or what stands out is no molecule.
    """
    shell = np.ones(volume.shape, bool)
    shell[2:-2, 2:-2, 2:-2] = False
    values = volume - np.float32(np.median(volume[shell]))
    sigma = max(_SMOOTH_A / voxel_size_A, _SMOOTH_VOX)
    smooth = ndimage.gaussian_filter(values, sigma, mode="nearest")
    bright, dark = float(smooth.max()), -float(smooth.min())
    if _is_noise(smooth, round(2 * sigma)):
        raise UserError(f"{path}: nothing stands out of the noise in this map; give a density map of one molecule")
    if dark > _DARK * bright:
        raise UserError(
            f"{path}: the molecule is dark in this map (the darkest place is {dark / max(bright, 1e-30):.1f} times as far from the ground as "
            "the brightest); say so with --contrast dark (info: --dark, orient: --reference-contrast dark), or give it inverted"
        )
    if dark > _DOUBTFUL * bright:
        remark(
            f"{path}: dark places of this map are stronger than bright ones; it is taken for one in which the molecule is bright."
        )
    core = smooth > _CORE * bright
    if _cut_off(core):
        remark(f"{path}: the molecule reaches the border of its map; it is taken for as large as what is in the box.")
    if _is_ball(smooth, core):
        remark(f"{path}: the map is a ball without features; whatever is as large will look like it.")
    around = ndimage.binary_dilation(core, iterations=max(round(_AROUND_A / voxel_size_A), 1))
    outside = values[~around]
    # What a mask has set to one value is no noise.
    outside = outside[outside != outside[0]] if len(outside) else outside
    noise = float(outside.std(dtype=np.float64)) if len(outside) > 0.01 * values.size else 0.0
    if np.count_nonzero(values > 0.1 * values.max()) * voxel_size_A**3 < _LEAST_VOLUME_A3:
        raise UserError(
            f"{path}: only a few voxels of this map stand out, which are no molecule; give a density map of one molecule"
        )
    if noise < _NOISY * float(values.max()):
        return volume
    cleaned = _largest(around & (smooth > _NOISY * bright), smooth)
    remark(
        f"{path}: noise around the molecule reaches {noise / float(values.max()):.0%} of its maximum; what stands out of it is taken for the "
        "molecule (a masked map is safer)."
    )
    return np.where(cleaned, values, np.float32(0))


def _is_noise(smooth: NDArray[np.float32], rim: int) -> bool:
    """Whether a smoothed map, 0 at the ground, goes as far down as up, and nowhere far; at the rim less is smoothed."""
    inner = smooth[tuple(slice(rim, -rim) if n > 4 * rim else slice(None) for n in smooth.shape)].astype(np.float64)
    median = float(np.median(inner))
    deviation = 1.4826 * float(np.median(np.abs(inner - median)))
    if abs(((inner - inner.mean()) ** 3).mean()) >= _LEAST_SKEW * inner.std() ** 3:
        return False
    # About the ground; or about its own level, where that is not the ground's and the map does not fill its box evenly.
    for level in (0.0, median) if deviation < np.abs(inner).max() / 4 else (0.0,):
        up, down = float(inner.max()) - level, level - float(inner.min())
        if min(up, down) > _LEAST_SIDED * max(up, down) and max(up, down) < _LEAST_PEAK * deviation:
            return True
    return False


def _is_ball(smooth: NDArray[np.float32], core: NDArray[np.bool_]) -> bool:
    """Whether a map is solid and its spherical average is all that there is to it; capsids are hollow."""
    middle = np.array(ndimage.center_of_mass(np.where(core, smooth, 0)))
    radius = np.sqrt(
        sum((axis - at) ** 2 for axis, at in zip(np.ogrid[tuple(map(slice, core.shape))], middle, strict=True))
    )
    near = radius <= _BALL_REACH * radius[core].max()
    ring = np.round(radius[near]).astype(int)
    profile = np.bincount(ring, smooth[near].astype(np.float64)) / np.maximum(np.bincount(ring), 1)
    alike = float(np.corrcoef(profile[ring], smooth[near])[0, 1])
    return alike > _BALL_ALIKE and float(smooth[radius <= 1.5].mean()) > _SOLID * float(profile.max())


def _cut_off(core: NDArray[np.bool_]) -> bool:
    """Whether a fifth of a face is molecule."""
    faces = [core.take(at, axis) for axis in range(3) for at in (0, -1)]
    return max(float(face.mean()) for face in faces) > 0.2


def _largest(mask: NDArray[np.bool_], weight: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The connected part of a mask that weighs most."""
    label, count = ndimage.label(mask)
    if count < 2:
        return mask
    sums = ndimage.sum_labels(weight, label, np.arange(1, count + 1))
    return np.asarray(label == 1 + int(np.argmax(sums)))
