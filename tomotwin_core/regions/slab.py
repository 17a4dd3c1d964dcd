"""The specimen's lower and upper surface in a tomogram, from texture.

Above and below the specimen a tomogram holds noise and nothing else, and its band-passed variance is low there and even.
The plane of a tomogram is cut into tiles, small enough for a tilted specimen to be flat in each; the profile of a
tile's log variance along z is fitted by a box (least squares: what two levels explain best), which gives a bottom and a
top. Through these of all tiles one smooth surface each is laid by robust regression, so that a tile with a vesicle at
the face or with ice contamination has no say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import least_squares

# Texture between these scales (standard deviations of Gaussians) tells macromolecules from empty space.
_FINE_A, _COARSE_A = 20.0, 90.0
_TILE_A = 500.0
_TILES_FEWEST = 3
# Gold, hot voxels and contamination must not outweigh the specimen.
_CLIP_DEVIATIONS = 4.0
# Natural logarithm of the ratio of variances inside and outside, below which there is no empty space.
_LEAST_CONTRAST = 0.35
_THINNEST_A = 100.0
# Particles that stick out of what the texture shows are inside still.
_MARGIN_A = 40.0


@dataclass(frozen=True)
class Slab:
    """Bottom and top as polynomials of the place in the plane.

    bottom_A, top_A : coefficients of 1, v, u, v^2, v u, u^2, heights in A from the first plane; v and u are y and x from
    the middle, in units of half the extent.  extent_A : (y, x) of the tomogram.  contrast : logarithm of the ratio of
    the variances inside and outside.
    """

    bottom_A: tuple[float, ...]
    top_A: tuple[float, ...]
    extent_A: tuple[float, float]
    contrast: float

    def surfaces_A(self, y_A: np.ndarray, x_A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bottom and top (A) at places given in A, of the places' shape."""
        terms = _terms(y_A, x_A, self.extent_A)
        return terms @ np.array(self.bottom_A), terms @ np.array(self.top_A)

    @property
    def thickness_A(self) -> float:
        """At the middle."""
        return self.top_A[0] - self.bottom_A[0]


def find_slab(volume: np.ndarray, voxel_size_A: float, ignored: np.ndarray | None = None) -> Slab | None:
    """The slab of specimen in a tomogram; None where there is no empty space above or below.

    volume : float32 [z, y, x], of either contrast; voxels of 20 to 45 A are fine enough.  ignored : bool [y, x], columns
    that say nothing about the specimen (carbon film).
    """
    depth, height, width = volume.shape
    if depth < 8:
        return None
    counts = np.ones((height, width), bool) if ignored is None else ~ignored
    texture = _texture(volume, voxel_size_A)
    rows, columns = (np.array_split(np.arange(n), max(round(n * voxel_size_A / _TILE_A), 1)) for n in (height, width))
    profiles, v, u = [], [], []
    for row in rows:
        band = texture[:, row[0] : row[-1] + 1]
        for column in columns:
            if counts[row[0] : row[-1] + 1, column[0] : column[-1] + 1].mean() < 0.5:
                continue
            # The tomogram's own first and last planes, where filters mirror, speak with their neighbours' voice.
            profile = band[:, :, column[0] : column[-1] + 1].mean((1, 2), dtype=np.float64)
            profile[0], profile[-1] = profile[1], profile[-2]
            profiles.append(np.log(np.maximum(profile, profile.max() * 1e-6 + 1e-30)))
            v.append(row.mean() * voxel_size_A)
            u.append(column.mean() * voxel_size_A)
    if not profiles:
        return None
    extent = ((height - 1) * voxel_size_A, (width - 1) * voxel_size_A)
    terms = _terms(np.array(v), np.array(u), extent)
    boxes = np.array([_box(p, max(int(_THINNEST_A / voxel_size_A), 1)) for p in profiles])
    free = _free_terms(len(rows), len(columns))
    weight = np.sqrt(np.maximum(boxes[:, 2], 1e-9) / max(np.median(boxes[:, 2]), 1e-9)).clip(0.1, 2.0)
    bottom, top = (_robust_surface(terms, boxes[:, i] * voxel_size_A, weight, free, 3 * voxel_size_A) for i in (0, 1))
    bottom[0] -= _MARGIN_A
    top[0] += _MARGIN_A
    contrast = _contrast(profiles, terms @ bottom / voxel_size_A, terms @ top / voxel_size_A)
    if contrast < _LEAST_CONTRAST:
        return None
    return Slab(tuple(map(float, bottom)), tuple(map(float, top)), extent, contrast)


def _texture(volume: np.ndarray, voxel_size_A: float) -> np.ndarray:
    """The band-passed volume squared, float32 [z, y, x]."""
    data = np.asarray(volume, np.float32)
    band = ndimage.gaussian_filter(data, max(_FINE_A / voxel_size_A, 0.5))
    band -= ndimage.gaussian_filter(data, _COARSE_A / voxel_size_A)
    limit = _CLIP_DEVIATIONS * 1.4826 * float(np.median(np.abs(band[:, ::2, ::2])))
    np.clip(band, -limit, limit, out=band)
    return np.square(band, out=band)


def _box(profile: np.ndarray, thinnest: int) -> tuple[float, float, float]:
    """(bottom, top, gain) of the two-level fit: the planes' outer edges, and the sum of squares that it explains."""
    n = len(profile)
    total = np.concatenate([[0.0], np.cumsum(profile)])
    low, high = np.meshgrid(np.arange(n), np.arange(1, n + 1), indexing="ij")
    inside = high - low
    outside = np.maximum(n - inside, 1)
    within = total[high] - total[low]
    difference = within / np.maximum(inside, 1) - (total[-1] - within) / outside
    gain = np.where((inside >= thinnest) & (inside < n) & (difference > 0), inside * outside / n * difference**2, 0.0)
    if not gain.any():
        return -0.5, n - 0.5, 0.0
    best = np.unravel_index(int(gain.argmax()), gain.shape)
    return float(best[0]) - 0.5, float(best[1]) - 0.5, float(gain[best])


def _robust_surface(
    terms: np.ndarray, heights: np.ndarray, weight: np.ndarray, free: np.ndarray, scale: float
) -> np.ndarray:
    start = np.zeros(terms.shape[1])
    start[0] = float(np.median(heights))

    def residuals(coefficients: np.ndarray) -> np.ndarray:
        return np.asarray(weight * (terms[:, free] @ coefficients - heights))

    found = least_squares(residuals, start[free], loss="soft_l1", f_scale=scale)
    # A second time with a loss that forgets what lies far off, from where the convex one ended.
    found = least_squares(residuals, found.x, loss="cauchy", f_scale=scale)
    coefficients = np.zeros(terms.shape[1])
    coefficients[free] = found.x
    return coefficients


def _free_terms(n_rows: int, n_columns: int) -> np.ndarray:
    """Which of the polynomial's terms so many tiles can determine."""
    tilted = [n_rows >= _TILES_FEWEST, n_columns >= _TILES_FEWEST]
    curved = [n_rows >= 2 * _TILES_FEWEST, n_columns >= 2 * _TILES_FEWEST]
    return np.array([True, tilted[0], tilted[1], curved[0], curved[0] and curved[1], curved[1]])


def _contrast(profiles: list[np.ndarray], bottom: np.ndarray, top: np.ndarray) -> float:
    """Median over the tiles of mean log variance between the surfaces less that outside; 0 where nothing is outside."""
    differences = []
    for profile, low, high in zip(profiles, bottom, top, strict=True):
        z = np.arange(len(profile))
        inside = (z >= low) & (z <= high)
        if inside.any() and not inside.all():
            differences.append(profile[inside].mean() - profile[~inside].mean())
    return float(np.median(differences)) if 2 * len(differences) > len(profiles) else 0.0


def _terms(y_A: np.ndarray, x_A: np.ndarray, extent_A: tuple[float, float]) -> np.ndarray:
    v, u = (2 * np.asarray(p) / max(e, 1e-6) - 1 for p, e in zip((y_A, x_A), extent_A, strict=True))
    return np.stack([np.ones_like(v), v, u, v * v, v * u, u * u], axis=-1)
