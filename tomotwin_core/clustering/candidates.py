"""Candidates: the few thousand places of a tomogram where something is, out of its millions of embeddings.

Two signs of something are followed, because either misses what the other sees: the network's own particleness, which is
low in the middle of hollow particles, and how far an embedding lies from what the tomogram is full of (its Mahalanobis
length about the tomogram's mean), which is low for small particles. Every local maximum of either above its floor is a
place, and of two places of the two kinds that nearly coincide the one with the higher particleness stays. Where exactly it
is, the particleness beside it tells: steps of the grid are as long as a small molecule. The field is
read layer by layer with some planes of its neighbours, so that memory does not grow with the tomogram.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.parabola import vertex
from tomotwin_core.progress import progress

# Towards a round scatter, so that directions without any scatter are not blown up.
_SHRINKAGE = 0.02
# Places closer than this, in steps of the embedding grid, are one place.
_SAME_STEPS = 1.8
_SIZES_STEPS = 8
# The surroundings of a place, in steps: a ball, weighted by a Gaussian of this width, and two shells about it.
_BALL_SIGMA, _SHELLS = 0.8, ((1.5, 2.5), (2.5, 3.5))
_FARTHEST_STEPS = 0.6  # that a place lies from the grid's
HALO = 5
# Particleness is one more feature; this makes a logit count about as much as what embeddings scatter by.
_LOGIT, _LOGITS = 0.05, (-8.0, 12.0)


@dataclass(frozen=True)
class CandidateSettings:
    """salience: a place counts whose Mahalanobis length is so many robust deviations above the tomogram's median.
    particleness: or whose particleness, a logit, is above this. most: of one tomogram, the most salient of them."""

    salience: float = 3.0
    particleness: float = -6.0
    most: int = 20_000


@dataclass(frozen=True)
class Candidates:
    """n places of several tomograms.

    tomogram (n,) int: which of `names`.  xyz (n, 3) float64: voxels of the original tomogram.  xyz_A (n, 3): the same
    in A.  embedding (n, 32) float32: the unit vector at the place.  features (n, 97): the mean embedding of a ball about the place
    and of two shells about that, each less the mean of its tomogram, for what surrounds a place tells more than the place alone;
    and its particleness.
    particleness (n,) logits.  salience (n,): deviations above the tomogram's median.  diameter_A (n,): rough size of what is
    salient about the place.
    """

    names: tuple[str, ...]
    tomogram: np.ndarray
    xyz: np.ndarray
    xyz_A: np.ndarray
    embedding: np.ndarray
    features: np.ndarray
    particleness: np.ndarray
    salience: np.ndarray
    diameter_A: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)

    def select(self, which: np.ndarray) -> Candidates:
        """The rows of a mask or of indices."""
        parts = {name: getattr(self, name)[which] for name in _COLUMNS}
        return replace(self, **parts)

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Those of one tomogram each, one after another."""
        names = tuple(name for part in parts for name in part.names)
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        starts = np.cumsum([0] + [len(part.names) for part in parts[:-1]])
        columns["tomogram"] = np.concatenate([p.tomogram + s for p, s in zip(parts, starts, strict=True)])
        return cls(names, **columns)


_COLUMNS = ("tomogram", "xyz", "xyz_A", "embedding", "features", "particleness", "salience", "diameter_A")


@dataclass(frozen=True)
class Bulk:
    """What a tomogram is full of. centre (32,): its mean embedding. matrix (32, 32): whitens the scatter about it.
    median, spread: of the Mahalanobis length."""

    centre: np.ndarray
    matrix: np.ndarray
    median: float
    spread: float

    @classmethod
    def of(cls, sample: np.ndarray) -> Bulk:
        """From embeddings (m, 32) at random places."""
        centre = sample.mean(0)
        scatter = np.cov((sample - centre).T)
        size = len(scatter)
        scatter = (1 - _SHRINKAGE) * scatter + _SHRINKAGE * np.trace(scatter) / size * np.eye(size)
        values, vectors = np.linalg.eigh(scatter)
        matrix = (vectors / np.sqrt(np.maximum(values, 1e-8))).astype(np.float32)
        length = np.linalg.norm((sample - centre) @ matrix, axis=1)
        median = float(np.median(length))
        spread = 1.4826 * float(np.median(np.abs(length - median)))
        return cls(centre.astype(np.float32), matrix, median, max(spread, 1e-6))

    def salience(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings (..., 32) -> robust deviations of their length above the median, float32 (...)."""
        moved = embeddings @ self.matrix - self.centre @ self.matrix
        return np.asarray((np.sqrt(np.einsum("...i,...i->...", moved, moved)) - self.median) / self.spread)


def find_candidates(field: EmbeddingField, settings: CandidateSettings | None = None, silent: bool = False) -> Candidates:
    """The places of one embedded tomogram where something is, the most salient first. silent : do not show progress."""
    settings = settings or CandidateSettings()
    bulk = Bulk.of(field.sample())
    found, slabs = [], list(field.slabs(halo=HALO))
    for z0, z1, low, high in slabs if silent else progress(slabs, desc=f"candidates of {field.tomogram}", unit="slabs"):
        embeddings, particleness = field.embeddings(low, high), field.particleness(low, high)
        found.append(candidates_in(embeddings, particleness, bulk, settings, (z0 - low, z1 - low), low))
    zyx, embedding, features, logit, salience, steps = (np.concatenate([part[i] for part in found]) for i in range(6))
    apart = np.flatnonzero(_apart(zyx, logit))
    order = apart[np.argsort(-salience[apart], kind="stable")][: settings.most]
    xyz_A = zyx[order, ::-1] * field.spacing_A
    inside = np.clip(xyz_A / field.voxel_size_A, 0, np.array(field.tomogram_shape[::-1]) - 1)
    return Candidates(
        (field.tomogram,),
        np.zeros(len(order), int),
        inside,
        xyz_A,
        embedding[order],
        features[order],
        logit[order],
        salience[order].astype(np.float32),
        (steps[order] * field.spacing_A).astype(np.float32),
    )


def places_of_array(
    embeddings: np.ndarray, particleness: np.ndarray, bulk: Bulk, settings: CandidateSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of a whole field in memory: zyx (n, 3) in steps of the grid, embeddings (n, 32) and features (n, 97)."""
    places, embedding, features, logit, _, _ = candidates_in(embeddings, particleness, bulk, settings)
    keep = _apart(places, logit)
    return places[keep], embedding[keep], features[keep]


def candidates_in(
    embeddings: np.ndarray,
    particleness: np.ndarray,
    bulk: Bulk,
    settings: CandidateSettings,
    planes: tuple[int, int] | None = None,
    first: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Places in an array of embeddings [z, y, x, 32] with particleness [z, y, x], looked for in some of its planes.

    first : the grid plane that plane 0 is.  Returns, with places that nearly coincide still among them, zyx (n, 3) in steps of
    the grid, embeddings of the nearest of it (n, 32), features (n, 97), particleness (n,), salience (n,) and diameters in steps (n,).
    """
    low, high = planes or (0, len(embeddings))
    salience = bulk.salience(embeddings)
    places = np.concatenate(
        [_maxima(particleness, settings.particleness, low, high), _maxima(salience, settings.salience, low, high)]
    )
    places = np.unique(places, axis=0)
    at = tuple(places.T)
    exactly = _between(particleness, places)
    features = surroundings(embeddings, exactly) - np.tile(bulk.centre, 1 + len(_SHELLS))
    features = np.column_stack([features, _LOGIT * np.clip(particleness[at], *_LOGITS)])
    return (
        exactly + (first, 0, 0),
        embeddings[at],
        features.astype(np.float32),
        particleness[at],
        salience[at],
        _diameters(salience, places),
    )


def surroundings(embeddings: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Mean embeddings [z, y, x, d] about places (n, 3) on the grid or between: (n, 3 d), of the ball and of each shell; beyond a face
    the face's."""
    nearest = np.round(places).astype(int)
    reach = int(np.ceil(_SHELLS[-1][1] + 0.5))
    last = np.array(embeddings.shape[:3]) - 1
    out = np.zeros((1 + len(_SHELLS), len(places), embeddings.shape[-1]), np.float32)
    total = np.zeros((len(out), len(places), 1), np.float32)
    for offset in product(range(-reach, reach + 1), repeat=3):
        distance = np.linalg.norm(nearest + offset - places, axis=1)
        weights = [np.where(distance < 2.5, np.exp(-(distance**2) / (2 * _BALL_SIGMA**2)), 0.0)]
        weights += [(distance >= low) & (distance < high) for low, high in _SHELLS]
        if not np.any(weights):
            continue
        found = embeddings[tuple(np.clip(nearest + offset, 0, last).T)]
        for part, sums, weight in zip(out, total, weights, strict=True):
            if weight.any():
                part += weight.astype(np.float32)[:, None] * found
                sums += weight.astype(np.float32)[:, None]
    return np.concatenate(list(out / total), axis=1)


def _between(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Places (n, 3) of the grid moved to where, along each axis, the parabola through the values there and on both sides is highest, if
    it has such a point, and not farther than `_FARTHEST_STEPS`."""
    last, out = np.array(values.shape) - 1, places.astype(np.float64)
    for axis, step in enumerate(np.eye(3, dtype=int)):
        before, here, after = (values[tuple(np.clip(places + steps * step, 0, last).T)] for steps in (-1, 0, 1))
        out[:, axis] += vertex(before, here, after, _FARTHEST_STEPS)
    return np.clip(out, 0, last)


def _maxima(values: np.ndarray, floor: float, low: int, high: int) -> np.ndarray:
    """Places (n, 3) of local maxima above the floor in planes low to high; a plateau (padding, vacuum) is none."""
    greatest = ndimage.maximum_filter(values, 3, mode="nearest")
    here = (values == greatest) & (values > floor)
    here[:low] = here[high:] = False
    places = np.argwhere(here)
    if not len(places):
        return places.reshape(0, 3)
    least = ndimage.minimum_filter(values, 3, mode="nearest")
    at = tuple(places.T)
    return places[values[at] > least[at]]


def _apart(places: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Which to keep so that no two lie closer than the least distance: the higher of two."""
    if not len(places):
        return np.zeros(0, bool)
    order = np.argsort(-rank, kind="stable")
    tree = cKDTree(places)
    keep = np.ones(len(places), bool)
    for i in order:
        if keep[i]:
            near = np.array(tree.query_ball_point(places[i], _SAME_STEPS))
            keep[near[near != i]] = False
    return keep


def _diameters(salience: np.ndarray, places: np.ndarray) -> np.ndarray:
    """How far about each place, in the plane, the salience stays above half of its own: twice that, in steps."""
    out = np.full(len(places), 2.0)
    if not len(places):
        return out
    _, height, width = salience.shape
    z, y, x = places.T
    half = salience[z, y, x] / 2
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    reach = np.zeros((len(angles), len(places)))
    for i, angle in enumerate(angles):
        alive = np.ones(len(places), bool)
        for r in range(1, _SIZES_STEPS + 1):
            yy = np.clip(np.round(y + r * np.sin(angle)).astype(int), 0, height - 1)
            xx = np.clip(np.round(x + r * np.cos(angle)).astype(int), 0, width - 1)
            alive &= salience[z, yy, xx] > half
            reach[i] += alive
    return 2 * np.median(reach, axis=0) + 1
