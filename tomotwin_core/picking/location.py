"""Peaks of similarity: where the targets are.

Every voxel belongs to the target that it matches best (competition). A peak is a local maximum of its target's
similarity, moved by a fraction of a step to the centre of the hill about it; of two peaks of one target closer than its
separation, and of two of different targets whose middles coincide, the better stays. Work goes layer by layer: a layer
brings the last planes of the one before, so that every plane is judged with its neighbours on both sides, and where targets
are many strip by strip of its rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy.spatial import cKDTree

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.picking.discovery import false_discovery_rates, fisher_z
from tomotwin_core.picking.references import ReferenceSet, require_same_model
from tomotwin_core.picking.similarity import Compare, Field, layers_to_compare, strips
from tomotwin_core.regions import Region

# Faces first: most places are no maximum, and one of six neighbours tells.
_NEIGHBOURS = sorted((o for o in product((-1, 0, 1), repeat=3) if any(o)), key=lambda o: sum(map(abs, o)))
# The hill about a peak: half of a ball of two and a half steps, the other half lies opposite. How many planes that takes.
_HILL = [o for o in product((-2, -1, 0, 1, 2), repeat=3) if o > (0, 0, 0) and np.linalg.norm(o) < 2.5]
_REACH = 2


@dataclass(frozen=True)
class LocationSettings:
    """min_score: peaks below are not listed. separation: least distance of two picks of one target, as a share of its
    diameter. competition: a peak counts only where its target is the best of all; across: the same share for picks
    of different targets. background: the background's prototypes compete too. slab: planes taken at a time from a stored embedding."""

    min_score: float = 0.2
    separation: float = 0.6
    competition: bool = True
    across: float = 0.2
    background: bool = False
    slab: int | None = None


@dataclass(frozen=True)
class Peaks:
    """zyx (n, 3) grid positions with fractions, score (n,), target (n,) index; won (n,), where it was asked for: whether the
    target is the best of all there."""

    zyx: np.ndarray
    score: np.ndarray
    target: np.ndarray
    won: np.ndarray | None = None

    def select(self, which: np.ndarray) -> Peaks:
        won = None if self.won is None else self.won[which]
        return Peaks(self.zyx[which], self.score[which], self.target[which], won)


def locate(
    field: Field, references: ReferenceSet, settings: LocationSettings | None = None, region: Region | None = None
) -> Coordinates:
    """All peaks of all targets in one tomogram, or in a region of it, in voxels of the original tomogram, best first."""
    settings = settings or LocationSettings()
    require_same_model(references, field.model_hash, field.tomogram)
    layers, compare = layers_to_compare(field, references, settings.slab, settings.background and settings.competition)
    # Where wrong peaks lie is told by all of a target's peaks, low ones and lost ones.
    floating = any(t.calibration is not None and t.calibration.floating for t in references.targets)
    searched = replace(settings, min_score=-1.0) if floating else settings
    peaks = peaks_in_layers(layers, searched, floating, compare, len(references.targets) + 1)
    peaks = peaks.select(peaks.target < len(references.targets))
    if region is not None:
        # Before suppression: what lies outside takes no one's place.
        peaks = peaks.select(region.contains(peaks.zyx[:, ::-1] * field.spacing_A / field.voxel_size_A))
    everywhere = None
    if peaks.won is not None:
        everywhere = suppressed(peaks, references, field.spacing_A, replace(searched, competition=False))
        peaks = peaks.select(peaks.won)
    peaks = suppressed(peaks, references, field.spacing_A, searched)
    rates = false_discovery(peaks, references, searched.min_score, everywhere)
    listed = peaks.score >= settings.min_score
    return coordinates_of(peaks.select(listed), references, field, rates[listed])


def false_discovery(
    peaks: Peaks, references: ReferenceSet, least: float, everywhere: Peaks | None = None
) -> np.ndarray:
    """The false-discovery rate expected at each peak's score, (n,) float32, target by target; NaN where a target's scores
    are not calibrated.

    peaks : all of one tomogram that score at least `least`.  everywhere : with those that other targets took.
    """
    rates = np.full(len(peaks.score), np.nan, np.float32)
    for index, target in enumerate(references.targets):
        own = peaks.target == index
        if target.calibration is not None and own.any():
            scores = peaks.score[own]
            everyone = None if everywhere is None else everywhere.score[everywhere.target == index]
            rates[own] = false_discovery_rates(scores, target.calibration.probabilities(scores, least, everyone))
    return rates


def peaks_of(similarity: np.ndarray, settings: LocationSettings) -> Peaks:
    """Local maxima of a whole similarity array [z, y, x, target] above the least score."""
    return peaks_in_layers([(0, np.moveaxis(similarity, -1, 0))], settings)


def peaks_in_layers(
    layers: Iterable[tuple[int, np.ndarray]],
    settings: LocationSettings,
    lost: bool = False,
    compare: Compare | None = None,
    count: int = 0,
) -> Peaks:
    """Local maxima of consecutive layers (z0, similarity [target, z, y, x]); with `lost` in competition those too that another
    target won.

    compare : makes similarities to `count` targets at most of layers of embeddings [number, z, y, x].
    """
    found: list[Peaks] = []
    kept: np.ndarray | None = None
    start = judged = 0
    for z0, layer in layers:
        planes, start = (layer, z0) if kept is None else (np.concatenate([kept, layer], axis=1), z0 - kept.shape[1])
        end = max(planes.shape[1] - _REACH, judged - start)  # the last planes wait for their upper neighbours
        found.append(_in_strips(planes, start, judged - start, end, settings, lost, compare, count))
        judged, kept = start + end, planes[:, -2 * _REACH :].copy()
    if kept is not None:
        start += planes.shape[1] - kept.shape[1]
        found.append(_in_strips(kept, start, judged - start, kept.shape[1], settings, lost, compare, count))
    return _joined(found)


def _joined(found: list[Peaks]) -> Peaks:
    zyx, score, target = (np.concatenate([getattr(p, name) for p in found]) for name in ("zyx", "score", "target"))
    won = [p.won for p in found if p.won is not None]
    return Peaks(zyx, score, target, np.concatenate(won) if won else None)


def _in_strips(
    planes: np.ndarray, start: int, low: int, high: int, settings: LocationSettings, lost: bool, compare: Compare | None, count: int
) -> Peaks:
    """Local maxima in planes low to high of [number, z, y, x], whose plane 0 is plane `start` of the grid."""
    found, at = [], []
    for y0, y1, above, similarity in strips(planes, compare, count, _REACH):
        peaks, where = _maxima(similarity, (low, high), (y0 - above, y1 - above), (start, above, 0), settings, lost)
        found.append(peaks)
        at.append(where)
    peaks, where = _joined(found), np.concatenate(at)
    # The order is that of the whole layer, however it is cut: of two that score the same the first stays.
    return peaks if len(found) == 1 else peaks.select(np.lexsort((*where.T[::-1], peaks.target)))


def _maxima(
    planes: np.ndarray, z: tuple[int, int], y: tuple[int, int], origin: tuple[int, int, int], settings: LocationSettings, lost: bool
) -> tuple[Peaks, np.ndarray]:
    """Local maxima in planes z[0] to z[1] and rows y[0] to y[1] of [target, z, y, x], whose first voxel is the grid's `origin`,
    and their voxels (n, 3)."""
    judged, first = planes[:, slice(*z), slice(*y)], (z[0], y[0], 0)
    best = judged.argmax(0) if settings.competition else None
    zyx, scores, targets, won, at = [], [], [], [], []
    for index, values in enumerate(planes):
        candidate = judged[index] >= settings.min_score
        if best is not None and not lost:
            candidate &= best == index
        where, score = _tops(values, np.argwhere(candidate) + first)
        at.append(where + origin)
        zyx.append(at[-1] + _to_the_centre(values, where))
        scores.append(score)
        targets.append(np.full(len(where), index))
        if lost:
            taken = np.ones(len(where), bool) if best is None else best[tuple((where - first).T)] == index
            won.append(taken)
    own = np.concatenate(won) if lost else None
    return Peaks(np.concatenate(zyx), np.concatenate(scores), np.concatenate(targets), own), np.concatenate(at)


def _tops(values: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of places (n, 3) that no neighbour exceeds, and their values."""
    score = values[tuple(where.T)]
    # Beyond the faces a place is its own neighbour. Each comparison leaves fewer for the next.
    for offset in _NEIGHBOURS:
        if not len(where):  # often, where targets are many: then nothing else is worth its time
            return where, score
        higher = score >= _at(values, where, offset)
        where, score = where[higher], score[higher]
    # Where a tomogram is constant (padding, vacuum) so is the similarity: a million equal neighbours are no peaks.
    lowest = np.min([_at(values, where, o) for o in _NEIGHBOURS], axis=0)
    return where[score > lowest], score[score > lowest]


def _at(values: np.ndarray, where: np.ndarray, offset: tuple[int, ...]) -> np.ndarray:
    """Values [z, y, x] at places (n, 3) moved by an offset, held within the array."""
    z, y, x = (np.clip(where[:, i] + o, 0, n - 1) for i, (o, n) in enumerate(zip(offset, values.shape, strict=True)))
    return np.asarray(values[z, y, x])


def suppressed(peaks: Peaks, references: ReferenceSet, spacing_A: float, settings: LocationSettings) -> Peaks:
    """Greedy non-maximum suppression, best first, so that what stays is always the better of two."""
    peaks = peaks.select(np.argsort(-peaks.score, kind="stable"))
    zyx, target = peaks.zyx, peaks.target
    diameter = np.array([t.diameter_A for t in references.targets])[target] / spacing_A
    kept = np.ones(len(zyx), bool)
    rivals: list[list[list[int]]] = [[[]] * len(zyx)]
    for index in np.unique(target):
        own = np.flatnonzero(target == index)
        for i, near in zip(own, _near(zyx[own], settings.separation * diameter[own]), strict=True):
            rivals[0][i] = own[near].tolist()
    if settings.competition and settings.across > 0:
        rivals.append([near.tolist() for near in _near(zyx, settings.across * diameter)])
    for i in range(len(zyx)):
        if not kept[i]:
            continue
        later = np.array([j for near in rivals for j in near[i] if j > i and kept[j]], int)
        if not len(later):
            continue
        distance = np.linalg.norm(zyx[later] - zyx[i], axis=1)
        limit = np.where(
            target[later] == target[i],
            settings.separation * diameter[i],
            settings.across * np.minimum(diameter[later], diameter[i]),
        )
        kept[later[distance < limit]] = False
    return peaks.select(kept)


def _near(zyx: np.ndarray, radius: np.ndarray) -> list[np.ndarray]:
    """Indices of the positions within a radius of each, its own too."""
    if not len(zyx):
        return []
    return [np.array(near, int) for near in cKDTree(zyx).query_ball_point(zyx, radius)]


def coordinates_of(peaks: Peaks, references: ReferenceSet, field: Field, fdr: np.ndarray | None = None) -> Coordinates:
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
        fdr=fdr,
    )


def _to_the_centre(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Sub-voxel offset (n, 3) of each maximum: the mean of the places about it, weighted by the square of how far Fisher's z of
    their values lies above the least there, within a step.

    The top of such a hill is flat, as the network is trained to see a particle's centre within a voxel and a half, and
    large particles' tops are flatter still: the flanks tell more of the centre than the top's curvature does.
    Of two opposite places neither counts where one lies beyond a face.
    """
    if not len(where):
        return np.zeros((0, 3))
    last = np.array(values.shape) - 1
    pairs = []
    for offset in _HILL:
        inside = ((where >= np.abs(offset)) & (where <= last - np.abs(offset))).all(axis=1)
        opposite = tuple(-o for o in offset)
        pairs.append([np.where(inside, fisher_z(_at(values, where, o)), np.nan) for o in (offset, opposite)])
    here = fisher_z(values[tuple(where.T)])
    sides = np.array(pairs).reshape(len(_HILL), 2, len(where))
    least = np.fmin(np.fmin.reduce(sides, axis=(0, 1)), here)
    weight = np.nan_to_num((sides - least) ** 2)
    total = weight.sum(axis=(0, 1)) + (here - least) ** 2
    moment = np.einsum("on,oa->na", weight[:, 0] - weight[:, 1], np.array(_HILL, float))
    return np.clip(moment / np.maximum(total, 1e-12)[:, None], -1.0, 1.0)
