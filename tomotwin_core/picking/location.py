"""Peaks of similarity: where the targets are.

Every voxel belongs to the target that it matches best (competition). A peak is a local maximum of its target's
similarity, refined to a fraction of a voxel by a parabola per axis; of two peaks of one target closer than its
separation, and of two of different targets whose middles coincide, the better stays. Work goes plane by plane: slabs
with a halo, each peak found in the slab that owns its plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.picking.references import ReferenceSet, require_same_model
from tomotwin_core.progress import progress


@dataclass(frozen=True)
class LocationSettings:
    """min_score: peaks below are not listed. separation: least distance of two picks of one target, as a share of its
    diameter. competition: a peak counts only where its target is the best of all; across: the same share for picks
    of different targets."""

    min_score: float = 0.2
    separation: float = 0.6
    competition: bool = True
    across: float = 0.2
    slab: int | None = None


@dataclass(frozen=True)
class Peaks:
    """zyx (n, 3) grid positions with fractions, score (n,), target (n,) index."""

    zyx: np.ndarray
    score: np.ndarray
    target: np.ndarray


def locate(field: EmbeddingField, references: ReferenceSet, settings: LocationSettings | None = None) -> Coordinates:
    """All peaks of all targets in one tomogram, in voxels of the original tomogram, best first."""
    settings = settings or LocationSettings()
    require_same_model(references, field.model_hash, str(field.path))
    found = []
    slabs = list(field.slabs(settings.slab, halo=2))
    for z0, z1, low, high in progress(slabs, desc=f"locating in {field.tomogram}", unit="slabs"):
        similarity = references.similarity(field.embeddings(low, high))
        peaks = peaks_of(similarity, settings)
        own = (np.round(peaks.zyx[:, 0]) + low >= z0) & (np.round(peaks.zyx[:, 0]) + low < z1)
        found.append(Peaks(peaks.zyx[own] + (low, 0, 0), peaks.score[own], peaks.target[own]))
    return coordinates_of(suppressed(_joined(found), references, field.spacing_A, settings), references, field)


def peaks_of(similarity: np.ndarray, settings: LocationSettings) -> Peaks:
    """Local maxima of a similarity array [z, y, x, target] above the least score."""
    best = similarity.argmax(-1)
    zyx, score, target = [], [], []
    for index in range(similarity.shape[-1]):
        values = similarity[..., index]
        is_peak = (values == ndimage.maximum_filter(values, 3, mode="nearest")) & (values >= settings.min_score)
        # Where a tomogram is constant (padding, vacuum) so is the similarity: a million equal neighbours are no peaks.
        is_peak &= values > ndimage.minimum_filter(values, 3, mode="nearest")
        if settings.competition:
            is_peak &= best == index
        where = np.argwhere(is_peak)
        zyx.append(where + _parabola(values, where))
        score.append(values[tuple(where.T)])
        target.append(np.full(len(where), index))
    return Peaks(np.concatenate(zyx), np.concatenate(score), np.concatenate(target))


def suppressed(peaks: Peaks, references: ReferenceSet, spacing_A: float, settings: LocationSettings) -> Peaks:
    """Greedy non-maximum suppression, best first, so that what stays is always the better of two."""
    order = np.argsort(-peaks.score, kind="stable")
    zyx, score, target = peaks.zyx[order], peaks.score[order], peaks.target[order]
    diameter = np.array([t.diameter_A for t in references.targets])[target] / spacing_A
    kept = np.ones(len(order), bool)
    if len(order):
        tree = cKDTree(zyx)
        across = settings.across if settings.competition else 0.0
        reach = max(settings.separation, across) * diameter.max()
        for i, near in enumerate(tree.query_ball_point(zyx, reach)):
            if not kept[i]:
                continue
            later = np.array([j for j in near if j > i and kept[j]], int)
            if not len(later):
                continue
            distance = np.linalg.norm(zyx[later] - zyx[i], axis=1)
            limit = np.where(
                target[later] == target[i],
                settings.separation * diameter[i],
                across * np.minimum(diameter[later], diameter[i]),
            )
            kept[later[distance < limit]] = False
    return Peaks(zyx[kept], score[kept], target[kept])


def coordinates_of(peaks: Peaks, references: ReferenceSet, field: EmbeddingField) -> Coordinates:
    """Grid positions -> the original tomogram's voxels."""
    xyz = peaks.zyx[:, ::-1] * field.spacing_A / field.voxel_size_A
    inside = np.clip(xyz, 0, np.array(field.tomogram_shape[::-1]) - 1)
    return Coordinates.from_arrays(
        inside,
        field.voxel_size_A,
        shape=field.tomogram_shape,
        tomogram=field.tomogram,
        label=[references.names[t] for t in peaks.target],
        score=peaks.score,
        diameter_A=[references.targets[t].diameter_A for t in peaks.target],
    )


def _parabola(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Sub-voxel offset of each maximum: the vertex of the parabola through it and its two neighbours, per axis,
    within half a step."""
    offset = np.zeros(where.shape)
    here = values[tuple(where.T)]
    for axis in range(3):
        inner = (where[:, axis] > 0) & (where[:, axis] < values.shape[axis] - 1)
        before, after = where[inner].copy(), where[inner].copy()
        before[:, axis] -= 1
        after[:, axis] += 1
        a, b = values[tuple(before.T)], values[tuple(after.T)]
        curvature = 2 * here[inner] - a - b
        offset[inner, axis] = np.where(curvature > 1e-9, (b - a) / (2 * np.maximum(curvature, 1e-9)), 0.0)
    return np.clip(offset, -0.5, 0.5)


def _joined(found: list[Peaks]) -> Peaks:
    return Peaks(*(np.concatenate([getattr(p, name) for p in found]) for name in ("zyx", "score", "target")))
