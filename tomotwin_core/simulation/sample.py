"""A crowded sample: molecules at random places and orientations in a slab of ice, with vesicles and gold if wanted.

In: densities by name, how many copies of each, the slab. Out: one volume [z, y, x] in Da per voxel above ice, and the
truth: what lies where in which orientation. Molecules do not overlap: a copy is placed only where no voxel of its own
body (density above a fifth of its maximum) is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tomotwin_core.structures.density import Density, low_passed

_BODY = 0.2
# What lies below this share of the maximum is the empty margin of a box.
_CONTENT = 0.004
_TRIES = 40
# Voxels of 10 A that the body of a molecule takes up, per kDa: 1.21 A^3 per Da, about doubled by the blur of its contour.
_BODY_VOXELS_PER_KDA = 2.4
# Gold is 19.3 g/cm^3 and scatters less per Da than protein (f_e(0) = 10.6 A per 197 Da against 0.205 A per Da above
# vacuum).
_GOLD_DA_PER_A3 = 19.3 * 0.6022 * 0.45
# Lipid head groups and chains against ice (Da of protein contrast per A^3), and where they sit in a bilayer.
_HEAD_DA_PER_A3, _TAIL_DA_PER_A3 = 0.55, -0.10
_LEAFLET_A, _HEAD_SIGMA_A, _TAIL_SIGMA_A = 19.0, 5.0, 8.0


@dataclass(frozen=True)
class RotatedCopy:
    """A molecule turned and shifted by a part of a voxel: values and body mask [z, y, x] about the box's middle voxel
    plus `offset_vox` (x, y, z)."""

    values: np.ndarray
    body: np.ndarray
    rotation: np.ndarray
    offset_vox: np.ndarray


@dataclass
class Sample:
    """volume float32 [z, y, x] in Da per voxel; truth as parallel lists: names, positions (x, y, z, voxels),
    rotations (3, 3)."""

    volume: np.ndarray
    voxel_size_A: float
    taken: np.ndarray
    slab: tuple[int, int]
    names: list[str] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    rotations: list[np.ndarray] = field(default_factory=list)
    n_taken: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, int, int], voxel_size_A: float, thickness_vox: int) -> Sample:
        """An empty slab of `thickness_vox` planes in the middle of a box (z, y, x)."""
        low = max((shape[0] - thickness_vox) // 2, 0)
        return cls(
            np.zeros(shape, np.float32), voxel_size_A, np.zeros(shape, bool), (low, min(low + thickness_vox, shape[0]))
        )

    def place(self, name: str, copy: RotatedCopy, rng: np.random.Generator) -> bool:
        """Try random places for one copy; its centre stays inside the slab. Returns whether there was room."""
        half = np.array(copy.body.shape) // 2
        shape = np.array(self.volume.shape)
        reach = np.minimum(half, ((self.slab[1] - self.slab[0]) // 2 - 1, shape[1] // 2 - 1, shape[2] // 2 - 1)) // 2
        low = np.array((self.slab[0], 0, 0)) + (reach[0], 0, 0)
        high = np.array((self.slab[1], shape[1], shape[2])) - (reach[0], 0, 0)
        for centre in rng.integers(low, high, size=(_TRIES, 3)):
            box, inner = _overlap(centre - half, copy.body.shape, self.volume.shape)
            body = copy.body[inner]
            if self.taken[box][body].any():
                continue
            self.taken[box] |= body
            self.n_taken += int(body.sum())
            self.volume[box] += copy.values[inner]
            self.names.append(name)
            self.positions.append(centre[::-1] + copy.offset_vox)
            self.rotations.append(copy.rotation)
            return True
        return False

    @property
    def occupied_fraction(self) -> float:
        """Share of the slab's voxels that lie in the body of something (bodies that stick out of the slab count whole)."""
        plane = self.volume.shape[1] * self.volume.shape[2]
        return self.n_taken / (plane * max(self.slab[1] - self.slab[0], 1))


class Molecules:
    """Densities prepared for one voxel size, handed out in random orientations.

    `variants` > 0 keeps that many turned copies of each molecule and hands them out again turned by the 24 rotations of the cube (exact on the grid):
    the training stream's way, thousands of orientations at the price of a few.  0 interpolates every copy afresh.
    """

    def __init__(self, densities: Mapping[str, Density], voxel_size_A: float, variants: int = 0) -> None:
        self.voxel_size_A = voxel_size_A
        self.densities = dict(densities)
        self._smooth = {name: low_passed(d, voxel_size_A) for name, d in self.densities.items()}
        self._reach = {name: _reach(values) for name, values in self._smooth.items()}
        self._variants = variants
        self._kept: dict[str, list[RotatedCopy]] = {}

    def copy(self, name: str, rng: np.random.Generator) -> RotatedCopy:
        """One copy of a molecule in a random orientation (uniform on SO(3)) and sub-voxel position."""
        if not self._variants:
            return self._turned(name, rng)
        kept = self._kept.setdefault(name, [])
        if len(kept) < self._variants:
            kept.append(self._turned(name, rng))
        return _turn_by_cube(kept[rng.integers(len(kept))], rng)

    def _turned(self, name: str, rng: np.random.Generator) -> RotatedCopy:
        density, smooth = self.densities[name], self._smooth[name]
        rotation = Rotation.random(random_state=rng).as_matrix()
        offset = rng.uniform(-0.5, 0.5, 3)
        scale = self.voxel_size_A / density.voxel_size_A
        # The corners of the reference's box turn outwards: what counts is how far the molecule reaches in any direction.
        half = int(np.ceil(self._reach[name] / scale)) + 1
        axis = np.arange(-half, half + 1)
        z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
        points = np.stack([x, y, z]).reshape(3, -1) - offset[:, None]
        # x_sample = R x_reference, so the reference is read at R^T x_sample.
        reference = (rotation.T @ points)[::-1] * scale + (np.array(smooth.shape)[:, None] - 1) / 2
        values = (
            ndimage.map_coordinates(smooth, reference, order=1, mode="constant").reshape(z.shape).astype(np.float32)
        )
        values *= density.mass_kDa * 1000.0 / max(float(values.sum()), 1e-6)
        return _trimmed(RotatedCopy(values, values > _BODY * values.max(), rotation, offset))


def add_vesicle(sample: Sample, rng: np.random.Generator) -> bool:
    """A lipid vesicle of 200-700 A radius, whole or cut by the faces of the box; its membrane takes up its room."""
    radius = rng.uniform(200.0, 700.0) / sample.voxel_size_A
    nz, ny, nx = sample.volume.shape
    centre = np.array([rng.uniform(*sample.slab), rng.uniform(0, ny), rng.uniform(0, nx)])
    z, y, x = np.ogrid[:nz, :ny, :nx]
    squash = rng.uniform(0.7, 1.0)
    distance = (
        np.sqrt(((z - centre[0]) / squash) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2) - radius
    ) * sample.voxel_size_A
    body = np.abs(distance) < _LEAFLET_A + _HEAD_SIGMA_A
    body[: sample.slab[0]] = body[sample.slab[1] :] = False
    if (sample.taken & body).any():
        return False
    heads = sum(np.exp(-0.5 * ((distance - s * _LEAFLET_A) / _HEAD_SIGMA_A) ** 2) for s in (-1, 1))
    profile = _HEAD_DA_PER_A3 * heads + _TAIL_DA_PER_A3 * np.exp(-0.5 * (distance / _TAIL_SIGMA_A) ** 2)
    profile[: sample.slab[0]] = profile[sample.slab[1] :] = 0
    sample.volume += (profile * sample.voxel_size_A**3).astype(np.float32)
    sample.taken |= body
    sample.n_taken += int(body.sum())
    return True


def add_gold(sample: Sample, rng: np.random.Generator, radius_A: float | None = None) -> bool:
    """One gold bead (5-10 nm across) at a free place; listed in the truth as `gold`."""
    radius = (radius_A or rng.uniform(25, 50)) / sample.voxel_size_A
    half = int(np.ceil(radius)) + 1
    axis = np.arange(-half, half + 1)
    distance = np.sqrt(sum(a.astype(float) ** 2 for a in np.meshgrid(axis, axis, axis)))
    values = np.clip(radius - distance + 0.5, 0, 1) * _GOLD_DA_PER_A3 * sample.voxel_size_A**3
    copy = RotatedCopy(values.astype(np.float32), values > 0, np.eye(3), np.zeros(3))
    return sample.place("gold", copy, rng)


def even_copies(mass_kDa: Mapping[str, float], room_vox: float, fewest: int, most: int) -> dict[str, int]:
    """Copies of each molecule so that all take up the same share of `room_vox` voxels of 10 A, within fewest and most."""
    share = room_vox / len(mass_kDa)
    return {n: int(np.clip(share / (_BODY_VOXELS_PER_KDA * m), fewest, most)) for n, m in mass_kDa.items()}


def fill(
    sample: Sample, molecules: Molecules, copies: Mapping[str, int], rng: np.random.Generator, occupied: float = 1.0
) -> None:
    """Place `copies[name]` of each molecule, large ones first, until the slab is `occupied` to that fraction."""
    by_mass = sorted(copies, key=lambda name: -molecules.densities[name].mass_kDa)
    for name in by_mass:
        for _ in range(copies[name]):
            if sample.occupied_fraction >= occupied:
                return
            sample.place(name, molecules.copy(name, rng), rng)


def _turn_by_cube(copy: RotatedCopy, rng: np.random.Generator) -> RotatedCopy:
    order = rng.permutation(3)
    signs = rng.choice([-1, 1], 3)
    # As a matrix on (x, y, z): new axis i is the old axis order[i], times its sign. A mirror is made a rotation by
    # one more sign.
    matrix = np.zeros((3, 3))
    matrix[np.arange(3), order] = signs
    if np.linalg.det(matrix) < 0:
        signs[0] *= -1
        matrix[0] *= -1
    axes_zyx = tuple(2 - order[::-1])

    def turned(array: np.ndarray) -> np.ndarray:
        return np.flip(array.transpose(axes_zyx), [i for i in range(3) if signs[2 - i] < 0])

    return RotatedCopy(turned(copy.values), turned(copy.body), matrix @ copy.rotation, matrix @ copy.offset_vox)


def _reach(values: np.ndarray) -> float:
    """Distance of the farthest voxel with content from the box's middle, in voxels."""
    content = np.argwhere(values > _CONTENT * values.max()) - (np.array(values.shape) - 1) / 2
    return float(np.linalg.norm(content, axis=1).max())


def _trimmed(copy: RotatedCopy) -> RotatedCopy:
    content = np.argwhere(copy.values > _CONTENT * copy.values.max())
    middle = copy.values.shape[0] // 2
    half = int(np.abs(content - middle).max())
    cut = (slice(max(middle - half, 0), middle + half + 1),) * 3
    return RotatedCopy(
        np.ascontiguousarray(copy.values[cut]), np.ascontiguousarray(copy.body[cut]), copy.rotation, copy.offset_vox
    )


def _overlap(
    corner: np.ndarray, size: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a box at `corner` that lies in a volume: slices into the volume and into the box."""
    low = np.maximum(corner, 0)
    high = np.minimum(corner + np.array(size), shape)
    return (
        tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)),
        tuple(slice(int(a - c), int(b - c)) for a, b, c in zip(low, high, corner, strict=True)),
    )
