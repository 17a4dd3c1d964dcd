"""What is no specimen: gold beads and other very dark blobs with their halo, and carbon film.

Gold scatters six times as much as protein of the same volume; ice crystals that fell on a lamella look like it. So a blob is
taken out where it is far darker than what is dark in this tomogram: four times the darkest hundredth of the voxels, and two
and a half times the usual height of a blob. From such cores it is grown to half that, and then by a halo.

Carbon film at the edge of a hole is darker over hundreds of A than anything in the hole, and reaches the tomogram's rim.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

_BACKGROUND_A = 300.0
_DARKEST_SHARE, _TIMES_DARKEST = 99.0, 4.0
_BLOB_A = 100.0
_BLOB_DEVIATIONS, _TIMES_BLOBS, _BLOBS_PER_VOXEL = 4.0, 2.5, 5e-5
_FEWEST_CORE_VOXELS = 3
# More than this is not gold but a tomogram of another kind; then nothing is taken out.
_MOST_SHARE = 0.2
_CARBON_SMOOTH_A = 100.0
_CARBON_SHARES = (0.03, 0.6)
# Between film and the rest, in robust deviations of the rest; a mere gradient of grey has four.
_CARBON_DEVIATIONS = 6.0


def find_dark_blobs(darkness: np.ndarray, voxel_size_A: float, halo_A: float = 100.0) -> np.ndarray:
    """Gold beads and their like, bool [z, y, x].

    darkness : float32 [z, y, x], large where the tomogram is dark; voxels of 20 to 45 A.  halo_A : how far around a blob.
    """
    # Two box averages are nearly a Gaussian, at a cost that does not grow with its width.
    side = max(round(_BACKGROUND_A * np.sqrt(6) / voxel_size_A) | 1, 3)
    flat = darkness - ndimage.uniform_filter(ndimage.uniform_filter(darkness, side), side)
    sparse = flat[::2, ::2, ::2]
    deviation = 1.4826 * float(np.median(np.abs(sparse)))
    none = np.zeros(darkness.shape, bool)
    if deviation <= 0:
        return none
    high = flat > _BLOB_DEVIATIONS * deviation
    maxima = flat[high & (flat == ndimage.maximum_filter(flat, max(round(_BLOB_A / voxel_size_A) | 1, 3)))]
    # As few maxima as beads would be alone may be the beads.
    usual = float(np.median(maxima)) if len(maxima) > _BLOBS_PER_VOXEL * flat.size else 0.0
    limit = max(_TIMES_DARKEST * float(np.percentile(sparse, _DARKEST_SHARE)), _TIMES_BLOBS * usual)
    cores = _holding(flat > limit, None, _FEWEST_CORE_VOXELS)
    blobs = _holding(flat > limit / 2, cores, 1)
    if blobs.mean() > _MOST_SHARE:
        return none
    return _dilated(blobs, halo_A / voxel_size_A)


def _holding(mask: np.ndarray, seeds: np.ndarray | None, fewest: int) -> np.ndarray:
    """The connected parts of a mask that hold at least so many voxels of `seeds` (of their own, without seeds)."""
    label, count = ndimage.label(mask, np.ones((3, 3, 3)))
    held = np.bincount(label[mask if seeds is None else seeds & mask], minlength=count + 1) >= fewest
    held[0] = False
    return np.asarray(held[label])


def _dilated(mask: np.ndarray, radius: float) -> np.ndarray:
    """All voxels within `radius` of the mask; the mask has few voxels, so that each of them paints its ball."""
    half = int(radius)
    ball = np.indices((2 * half + 1,) * 3).reshape(3, -1).T - half
    points = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    out = mask.copy()
    last = np.array(mask.shape) - 1
    for offset in ball[(ball**2).sum(1) <= radius**2]:
        out[tuple(np.clip(points + offset, 0, last).T)] = True
    return out


def find_carbon(darkness: np.ndarray, voxel_size_A: float) -> np.ndarray:
    """Columns that carbon film covers, bool [y, x]; all False where no region at the rim stands out.

    darkness : float32 [z, y, x], large where the tomogram is dark; voxels of 20 to 45 A.
    """
    smooth = ndimage.gaussian_filter(np.asarray(darkness, np.float32), _CARBON_SMOOTH_A / voxel_size_A)
    # Film is thin beside a tomogram's height: its darkest plane tells. It is everywhere in its region, a bead is not.
    side = max(round(3 * _CARBON_SMOOTH_A / voxel_size_A), 1)
    columns = ndimage.median_filter(smooth.max(0), side, mode="nearest")
    none = np.zeros(columns.shape, bool)
    if not float(np.ptp(columns)) > 0:
        return none
    label, count = ndimage.label(columns > threshold_otsu(columns))
    rim = np.ones(columns.shape, bool)
    rim[1:-1, 1:-1] = False
    shares = np.bincount(label.ravel(), minlength=count + 1) / label.size
    film = np.isin(np.arange(count + 1), label[rim]) & (shares >= _CARBON_SHARES[0])
    film[0] = False
    carbon: np.ndarray = film[label]
    if not carbon.any() or carbon.mean() > _CARBON_SHARES[1]:
        return none
    rest = columns[label == 0]
    spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    if float(np.median(columns[carbon]) - np.median(rest)) < _CARBON_DEVIATIONS * spread:
        return none
    return carbon
