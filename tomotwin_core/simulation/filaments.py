"""F-actin and microtubules, built from their subunits by their helical parameters along straight or gently bent paths.

F-actin: one subunit every 27.5 A with a turn of -166.6 degrees (Fujii et al. 2010; Oda et al. 2009), two right-handed strands
that cross every 36 nm. Microtubule: 13 or 14 protofilaments, tubulin dimers every 82 A along them, a B lattice: neighbours
are shifted by 3 monomers per turn, a left-handed helix, so that with 13 protofilaments 3 x 41 / 13 = 9.5 A lie between
neighbours, and one seam; 14 do not close without a slight turn of the whole lattice (Chretien and Wade 1991; Amos and
Schlieper 2005).

A path is a worm-like chain: its direction wanders as the persistence length says (actin 17 um, microtubules mm; Gittes et
al. 1993).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tomotwin_core.simulation.molecules import BODY
from tomotwin_core.simulation.sample import Filament, Sample
from tomotwin_core.structures.density import at_voxel_size
from tomotwin_core.structures.library import load_library
from tomotwin_core.structures.subunits import TUBULIN_DIMER_A

ACTIN_RISE_A, ACTIN_TWIST_DEG, ACTIN_RADIUS_A = 27.5, -166.6, 16.5
PROTOFILAMENT_SPACING_A, MICROTUBULE_STARTS = 51.5, 3
_PROTOFILAMENTS, _SHARES = (13, 14), (0.7, 0.3)
_ACTIN_PERSISTENCE_A, _MICROTUBULE_PERSISTENCE_A = 1.7e5, 5.2e7
# Path: step, how steep in the ice at most, and how many are drawn before there is no room.
_STEP_A, _STEEPEST_DEG, _DRAWS = 20.0, 4.0, 12
# A filament ends where something is in its way: how near, and how short it may be.
_ACTIN_OUTER_A, _TUBULIN_HALF_A, _END_STEPS, _SHORTEST_A = 50.0, 30.0, 3, 500.0
# Points that a subunit's density is cut into: no farther apart than this or this share of a voxel, and what they leave out.
_POINTS_A, _POINTS_VOX, _POINTS_ABOVE = 5.0, 0.7, 0.02
_CHUNK_POINTS = 500_000


@dataclass(frozen=True)
class Lattice:
    """Where subunits sit about a straight axis: height_A (n,) along it, angle_rad (n,) about it, all at radius_A from it."""

    height_A: NDArray[np.float64]
    angle_rad: NDArray[np.float64]
    radius_A: float


@dataclass(frozen=True)
class Path:
    """A line in space: points_A (n, 3) x, y, z every `step_A`, frames (n, 3, 3) whose columns are two directions across and the
    direction along, carried on without twist."""

    points_A: NDArray[np.float64]
    frames: NDArray[np.float64]
    step_A: float

    def at(self, along_A: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Places (n, 3) and frames (n, 3, 3) at distances along the path."""
        near = np.clip(np.round(along_A / self.step_A).astype(int), 0, len(self.points_A) - 1)
        beyond = (along_A - near * self.step_A)[:, None]
        return self.points_A[near] + beyond * self.frames[near][:, :, 2], self.frames[near]


def actin_lattice(length_A: float) -> Lattice:
    """F-actin of a length."""
    count = int(length_A // ACTIN_RISE_A) + 1
    return Lattice(np.arange(count) * ACTIN_RISE_A, np.arange(count) * np.deg2rad(ACTIN_TWIST_DEG), ACTIN_RADIUS_A)


def microtubule_lattice(length_A: float, protofilaments: int = 13) -> Lattice:
    """A microtubule of a length in tubulin dimers, its ends blunt."""
    radius = protofilaments * PROTOFILAMENT_SPACING_A / (2 * np.pi)
    monomer = TUBULIN_DIMER_A / 2
    # Between neighbours as 13 protofilaments have it; what does not close turns the lattice.
    shift = MICROTUBULE_STARTS * monomer / 13
    skew = (protofilaments * shift - MICROTUBULE_STARTS * monomer) / (protofilaments * PROTOFILAMENT_SPACING_A)
    dimer, which = np.meshgrid(
        np.arange(int(length_A // TUBULIN_DIMER_A) + 3), np.arange(protofilaments), indexing="ij"
    )
    height = (dimer * TUBULIN_DIMER_A - which * MICROTUBULE_STARTS * monomer / protofilaments).ravel()
    angle = 2 * np.pi * which.ravel() / protofilaments - skew / radius * height
    whole = (height >= 0) & (height <= length_A)
    return Lattice(height[whole], angle[whole], radius)


def add_actin(sample: Sample, rng: np.random.Generator) -> bool:
    """One actin filament through the field, as far as nothing is in its way; labelled `actin`. False where there was no
    room."""
    return _add(sample, rng, "actin", "subunit_actin", _ACTIN_PERSISTENCE_A, _ACTIN_OUTER_A, actin_lattice)


def add_microtubule(sample: Sample, rng: np.random.Generator, protofilaments: int | None = None) -> bool:
    """One microtubule of 13 or 14 protofilaments, likewise; labelled `microtubule`."""
    count = protofilaments or int(rng.choice(_PROTOFILAMENTS, p=_SHARES))
    return _add(
        sample,
        rng,
        "microtubule",
        "subunit_tubulin",
        _MICROTUBULE_PERSISTENCE_A,
        count * PROTOFILAMENT_SPACING_A / (2 * np.pi) + _TUBULIN_HALF_A,
        lambda length: microtubule_lattice(length, count),
    )


def build(
    sample: Sample, path: Path, lattice: Lattice, subunit: str, turn_rad: float = 0.0
) -> tuple[tuple[slice, ...], NDArray[np.float32]] | None:
    """Density of the subunits along a path: the part of the sample's box that they reach, and its values [z, y, x] in Da per
    voxel. Subunits whose middle lies outside the ice are left out; None if all are."""
    places, frames = path.at(lattice.height_A)
    about = Rotation.from_euler("z", (lattice.angle_rad + turn_rad)[:, None]).as_matrix()
    turned = frames @ about
    places = (places + lattice.radius_A * turned[:, :, 0]) / sample.voxel_size_A
    kept = _in_ice(sample, places)
    if not kept.any():
        return None
    points, masses = _points_of(subunit, sample.voxel_size_A)
    return _scattered(sample, places[kept], turned[kept], points / sample.voxel_size_A, masses)


def _free_stretch(sample: Sample, path: Path, radius_A: float) -> Path | None:
    """The longest part of a path with nothing within `radius_A` of it, inside the ice; None if that is short."""
    across = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.cos(across), np.sin(across), 0 * across], axis=1)
    probes = np.concatenate([np.zeros((1, 3)), 0.5 * ring, ring]) * radius_A
    places = np.einsum("nij,pj->npi", path.frames, probes) + path.points_A[:, None]
    zyx = np.clip(np.round(places[..., ::-1] / sample.voxel_size_A).astype(int), 0, np.array(sample.volume.shape) - 1)
    free = (sample.labels[tuple(np.moveaxis(zyx, 2, 0))] == 0).all(axis=1)
    runs, count = ndimage.label(free & _in_ice(sample, path.points_A / sample.voxel_size_A))
    if not count:
        return None
    stretch = np.flatnonzero(runs == 1 + np.bincount(runs)[1:].argmax())
    # An end that stops before something keeps away from it.
    first = stretch[0] + (_END_STEPS if stretch[0] > 0 else 0)
    last = stretch[-1] - (_END_STEPS if stretch[-1] < len(path.points_A) - 1 else 0)
    if (last - first) * path.step_A < _SHORTEST_A:
        return None
    return Path(path.points_A[first : last + 1], path.frames[first : last + 1], path.step_A)


def _add(
    sample: Sample,
    rng: np.random.Generator,
    name: str,
    subunit: str,
    persistence_A: float,
    radius_A: float,
    lattice_of: Callable[[float], Lattice],
) -> bool:
    for _ in range(_DRAWS):
        path = _free_stretch(sample, random_path(sample, rng, persistence_A), radius_A)
        if path is None:
            continue
        lattice = lattice_of((len(path.points_A) - 1) * path.step_A)
        built = build(sample, path, lattice, subunit, rng.uniform(0, 2 * np.pi))
        if built is None:
            continue
        box, values = built
        body = values > BODY * values.max()
        if sample.labels[box][body].any():
            continue
        label = sample.claim(name, box, body)
        sample.volume[box] += values
        axis = path.points_A / sample.voxel_size_A
        sample.filaments.append(Filament(name, label, axis[_in_ice(sample, axis)]))
        return True
    return False


def random_path(sample: Sample, rng: np.random.Generator, persistence_A: float) -> Path:
    """A worm-like chain through a random place of the ice, nearly in its plane, to the sides of the field."""
    _, ny, nx = sample.volume.shape
    y, x = rng.uniform(0, ny - 1), rng.uniform(0, nx - 1)
    low, high = (float(s[int(y), int(x)]) for s in (sample.ice.bottom, sample.ice.top))
    start = np.array([x, y, rng.uniform(low + 0.2 * (high - low), high - 0.2 * (high - low))]) * sample.voxel_size_A
    steep = np.deg2rad(rng.uniform(-_STEEPEST_DEG, _STEEPEST_DEG))
    frame = Rotation.from_euler("ZY", [rng.uniform(0, 2 * np.pi), np.pi / 2 + steep]).as_matrix()
    half = int(np.hypot(ny, nx) * sample.voxel_size_A / _STEP_A) + 1
    ways = [_wander(start, frame @ np.diag([1.0, s, s]), half, persistence_A, rng) for s in (1.0, -1.0)]
    # The way back is turned round and put before the way forth.
    points = np.concatenate([ways[1][0][:0:-1], ways[0][0]])
    frames = np.concatenate([ways[1][1][:0:-1] @ np.diag([1.0, -1.0, -1.0]), ways[0][1]])
    margin = 150.0 / sample.voxel_size_A
    at = points[:, :2] / sample.voxel_size_A
    inside = ((at > -margin) & (at < np.array([nx, ny]) + margin)).all(axis=1)
    first, last = np.flatnonzero(inside)[[0, -1]]
    return Path(points[first : last + 1], frames[first : last + 1], _STEP_A)


def _wander(
    start: NDArray[np.float64], frame: NDArray[np.float64], steps: int, persistence_A: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (steps, 3) and frames (steps, 3, 3) of a worm-like chain: every step bends it about both axes across by an angle
    of variance step / persistence length."""
    bends = rng.normal(0, np.sqrt(_STEP_A / persistence_A), (steps, 2))
    points, frames = np.empty((steps, 3)), np.empty((steps, 3, 3))
    for i in range(steps):
        points[i], frames[i] = start, frame
        start = start + _STEP_A * frame[:, 2]
        frame = frame @ Rotation.from_rotvec([bends[i, 0], bends[i, 1], 0.0]).as_matrix()
    return points, frames


def _in_ice(sample: Sample, xyz: NDArray[np.float64]) -> NDArray[np.bool_]:
    _, ny, nx = sample.volume.shape
    x, y = (np.clip(np.round(xyz[:, i]).astype(int), 0, n - 1) for i, n in ((0, nx), (1, ny)))
    return (xyz[:, 2] >= sample.ice.bottom[y, x]) & (xyz[:, 2] <= sample.ice.top[y, x])


@lru_cache(maxsize=8)
def _points_of(subunit: str, voxel_size_A: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A subunit as point masses: xyz (n, 3) in A from its middle, Da (n,)."""
    density = load_library().density(subunit)
    spacing = min(_POINTS_A, _POINTS_VOX * voxel_size_A)
    if spacing < density.voxel_size_A:
        density = at_voxel_size(density, spacing)
    index = np.argwhere(density.values > _POINTS_ABOVE * density.values.max())
    masses = density.values[tuple(index.T)].astype(np.float64)
    xyz = (index - (np.array(density.values.shape) - 1) / 2)[:, ::-1] * density.voxel_size_A
    return xyz, masses * density.mass_kDa * 1000.0 / masses.sum()


def _scattered(
    sample: Sample,
    places: NDArray[np.float64],
    turns: NDArray[np.float64],
    points: NDArray[np.float64],
    masses: NDArray[np.float64],
) -> tuple[tuple[slice, ...], NDArray[np.float32]] | None:
    """Point masses of all subunits spread over the voxels about them (trilinear: the blur of 0.41 voxels that sampling needs);
    places and points in voxels."""
    reach = np.linalg.norm(points, axis=1).max() + 1
    low = np.maximum(np.floor(places.min(0) - reach), 0).astype(int)[::-1]
    high = np.minimum(np.ceil(places.max(0) + reach) + 1, sample.volume.shape[::-1]).astype(int)[::-1]
    shape = tuple(int(n) for n in high - low)
    if min(shape) < 1:
        return None
    # One voxel of margin takes what lies beyond the box.
    padded = tuple(n + 2 for n in shape)
    grid = np.zeros(int(np.prod(padded)))
    chunk = max(_CHUNK_POINTS // len(points), 1)
    for start in range(0, len(places), chunk):
        stop = start + chunk
        xyz = (np.einsum("nij,pj->npi", turns[start:stop], points) + places[start:stop, None]).reshape(-1, 3)
        zyx = xyz[:, ::-1] - low + 1
        weight = np.tile(masses, len(turns[start:stop]))
        inside = ((zyx >= 0) & (zyx < np.array(padded) - 1)).all(axis=1)
        zyx, weight = zyx[inside], weight[inside]
        corner = np.floor(zyx).astype(np.intp)
        part = zyx - corner
        corners = np.array(list(np.ndindex(2, 2, 2)))
        # [point, corner]: linear weights along each axis, multiplied.
        share = np.prod([np.where(corners[:, i], part[:, i, None], 1 - part[:, i, None]) for i in range(3)], axis=0)
        flat = np.ravel_multi_index(tuple(corner.T), padded)[:, None] + np.ravel_multi_index(tuple(corners.T), padded)
        grid += np.bincount(flat.ravel(), (share * weight[:, None]).ravel(), minlength=len(grid))
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return box, grid.reshape(padded)[1:-1, 1:-1, 1:-1].astype(np.float32)
