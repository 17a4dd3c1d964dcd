"""A crowded sample: molecules at random places and orientations in a slab of ice, beside whatever else lies there.

In: densities by name, how many copies of each, the ice. Out: one volume [z, y, x] in Da per voxel above ice, a volume of
labels, and the truth: what lies where in which orientation. Bodies do not overlap: a copy is placed only where no voxel
of its own body (density above a fifth of its maximum) belongs to another. Membranes, filaments, gold and carbon
(membranes.py, filaments.py, furniture.py) claim their voxels in the same labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from tomotwin_core.errors import UserError
from tomotwin_core.simulation.ice import Ice
from tomotwin_core.simulation.molecules import Molecules, RotatedCopy

# Places that are tried for a copy before it is given up, few at first, and voxels of its body that are looked at first.
_TRIES, _PROBES = (4, 28, 96), 24
# Where free room is known so many more are tried; a species is given up after so many copies without a place in a row.
_TRIES_IN_ROOM, _FAILURES = 800, 4
# Free room is looked for on a grid of about so many voxels.
_ROOM_VOXELS = 250_000
_MOST_BODIES = np.iinfo(np.uint16).max
# Voxels of 10 A that the body of a molecule takes up, per kDa: 1.21 A^3 per Da, about doubled by the blur of its contour.
_BODY_VOXELS_PER_KDA = 2.4
_G_PER_L_OF_DA_PER_A3 = 1660.54


@dataclass(frozen=True)
class Filament:
    """What was built along a path: its name, label, and points (n, 3) x, y, z in voxels along the axis, from the minus
    (pointed) to the plus (barbed) end."""

    name: str
    label: int
    path: NDArray[np.float64]


@dataclass
class Sample:
    """volume float32 [z, y, x] in Da per voxel; labels uint16 [z, y, x], 0 where nothing is and i + 1 in the body of
    structures[i]; the truth as parallel lists: names, positions (x, y, z, voxels), rotations (3, 3) of particles and their
    labels in `particle_labels`; filaments with their paths."""

    volume: NDArray[np.float32]
    voxel_size_A: float
    labels: NDArray[np.uint16]
    ice: Ice
    structures: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    positions: list[NDArray[np.float64]] = field(default_factory=list)
    rotations: list[NDArray[np.float64]] = field(default_factory=list)
    particle_labels: list[int] = field(default_factory=list)
    filaments: list[Filament] = field(default_factory=list)
    n_taken: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, int, int], voxel_size_A: float, ice: Ice | float) -> Sample:
        """A box (z, y, x) with nothing but ice; a number is the thickness in voxels of a level slab in its middle."""
        ice = ice if isinstance(ice, Ice) else Ice.flat(shape, ice)
        return cls(np.zeros(shape, np.float32), voxel_size_A, np.zeros(shape, np.uint16), ice)

    def claim(self, name: str, box: tuple[slice, ...], body: NDArray[np.bool_]) -> int:
        """Give the voxels `body` of `box` to a new structure; returns its label."""
        if len(self.structures) >= _MOST_BODIES:
            raise UserError(f"the sample holds {_MOST_BODIES} bodies already; ask for fewer copies or a smaller field")
        self.structures.append(name)
        self.n_taken += int(np.count_nonzero(body & (self.labels[box] == 0)))
        self.labels[box][body] = len(self.structures)
        return len(self.structures)

    def place(
        self,
        name: str,
        copy: RotatedCopy,
        rng: np.random.Generator,
        among: NDArray[np.intp] | None = None,
    ) -> bool:
        """Try random places for one copy, anywhere or `among` some (n, 3) voxels z, y, x; its centre stays inside the
        ice. Returns whether there was room."""
        half = copy.body.shape[0] // 2
        probes = copy.probes(_PROBES) - half
        for tries in _TRIES if among is None else (*_TRIES, _TRIES_IN_ROOM):
            if among is None:
                centres = self._places_in_ice(tries, half, rng)
            else:
                centres = rng.choice(among, min(tries, len(among)), replace=False)
            if any(self.put(name, copy, centre) for centre in centres[self._seems_free(centres, probes)]):
                return True
        return False

    def put(self, name: str, copy: RotatedCopy, centre: NDArray[np.intp]) -> bool:
        """Place one copy with its middle voxel at `centre` (z, y, x) unless something is there."""
        box, inner = overlap(centre - np.array(copy.body.shape) // 2, copy.body.shape, self.volume.shape)
        body = copy.body[inner]
        if self.labels[box][body].any():
            return False
        self.record(name, copy, centre, self.claim(name, box, body))
        self.volume[box] += copy.values[inner]
        return True

    def record(self, name: str, copy: RotatedCopy, centre: NDArray[np.intp], label: int) -> None:
        """Write a particle into the truth."""
        self.names.append(name)
        self.positions.append(centre[::-1] + copy.offset_vox)
        self.rotations.append(copy.rotation)
        self.particle_labels.append(label)

    @property
    def occupied_fraction(self) -> float:
        """Share of the ice's voxels that lie in the body of something (bodies that stick out of it count whole)."""
        return self.n_taken / max(float(self.ice.thickness.sum(dtype=np.float64)), 1.0)

    def free_places(self, radius_vox: float, rng: np.random.Generator) -> NDArray[np.intp]:
        """Voxels of the ice (n, 3) z, y, x that are about `radius_vox` or more away from every body, all of a small volume,
        one of each block of a large one."""
        step = int(np.ceil((self.labels.size / _ROOM_VOXELS) ** (1 / 3)))
        free = self.labels[::step, ::step, ::step] == 0
        # Beyond the box everything is free: the distance is to bodies alone.
        distance = ndimage.distance_transform_edt(free) * step if not free.all() else np.full(free.shape, np.inf)
        places = np.argwhere(distance > max(radius_vox - step, 0)) * step
        places = np.minimum(places + rng.integers(0, step, places.shape), np.array(self.labels.shape) - 1)
        z, y, x = places.T
        return places[(z >= self.ice.bottom[y, x]) & (z <= self.ice.top[y, x])]

    def _places_in_ice(self, tries: int, half: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """At most `tries` random voxels (n, 3), uniform over the ice's volume but for its faces, where a molecule of half-width `half`
        would stick out by more than half of that."""
        nz, ny, nx = self.volume.shape
        flat = rng.integers(0, ny * nx, tries)
        bottom, top = self.ice.bottom.ravel()[flat], self.ice.top.ravel()[flat]
        reach = np.minimum(half, np.maximum((top - bottom) // 2 - 1, 0)) // 2
        room = np.maximum(top - bottom - 2 * reach - 1, 0)
        chance = rng.random((2, tries))
        # Thick ice holds more: a column is kept by its share of the thickest one.
        kept = (chance[0] * self.ice.thickest <= top - bottom) & (top - bottom >= 1)
        z = np.clip(np.round(bottom + 0.5 + reach + room * chance[1]).astype(np.intp), 0, nz - 1)
        return np.stack([z, flat // nx, flat % nx], axis=1)[kept]

    def _seems_free(self, centres: NDArray[np.intp], probes: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether the labels are 0 at some voxels of the body: most places that are taken are found out by that."""
        at = centres[:, None] + probes[None]
        inside = ((at >= 0) & (at < self.volume.shape)).all(axis=2)
        z, y, x = np.moveaxis(np.where(inside[..., None], at, 0), 2, 0)
        return ~((self.labels[z, y, x] != 0) & inside).any(axis=1)


@dataclass(frozen=True)
class Crowding:
    """How crowded a sample is: share of the ice that lies in bodies, concentration of the molecules in g per litre of ice,
    and the distance from each particle's centre to the nearest other (n,) in A."""

    occupied: float
    concentration_g_per_L: float
    nearest_A: NDArray[np.float64]


def crowding(sample: Sample, mass_kDa: Mapping[str, float]) -> Crowding:
    """Measure it over all particles of the truth whose mass is given."""
    particles = [i for i, n in enumerate(sample.names) if n in mass_kDa]
    xyz = np.array([sample.positions[i] for i in particles]).reshape(-1, 3) * sample.voxel_size_A
    nearest = cKDTree(xyz).query(xyz, k=2)[0][:, 1] if len(xyz) > 1 else np.full(len(xyz), np.inf)
    mass_Da = 1000.0 * sum(mass_kDa[sample.names[i]] for i in particles)
    volume_A3 = float(sample.ice.thickness.sum(dtype=np.float64)) * sample.voxel_size_A**3
    return Crowding(sample.occupied_fraction, mass_Da / volume_A3 * _G_PER_L_OF_DA_PER_A3, nearest)


def even_copies(mass_kDa: Mapping[str, float], room_vox: float, fewest: int, most: int) -> dict[str, int]:
    """Copies of each molecule so that all take up the same share of `room_vox` voxels of 10 A, within fewest and most."""
    share = room_vox / len(mass_kDa)
    return {n: int(np.clip(share / (_BODY_VOXELS_PER_KDA * m), fewest, most)) for n, m in mass_kDa.items()}


def fill(
    sample: Sample,
    molecules: Molecules,
    copies: Mapping[str, int],
    rng: np.random.Generator,
    occupied: float = 1.0,
    dense: bool = False,
) -> None:
    """Place `copies[name]` of each molecule, large ones first, until the ice is `occupied` to that fraction.

    dense : where random places fail look for the free room that is left (a distance transform, slower).
    """
    for name in sorted(copies, key=lambda name: -molecules.densities[name].mass_kDa):
        room: NDArray[np.intp] | None = None
        failures = 0
        for _ in range(copies[name]):
            if sample.occupied_fraction >= occupied:
                return
            if failures >= _FAILURES:
                break
            copy = molecules.copy(name, rng)
            if sample.place(name, copy, rng) or not dense:
                continue
            # The list gets stale as copies are placed; a place of it is still checked, and a fresh list is the last try.
            if room is not None and len(room) and sample.place(name, copy, rng, room):
                continue
            room = sample.free_places(copy.inner_radius_vox(), rng)
            failures = 0 if len(room) and sample.place(name, copy, rng, room) else failures + 1


def overlap(
    corner: NDArray[np.intp], size: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a box at `corner` that lies in a volume: slices into the volume and into the box."""
    low = np.maximum(corner, 0)
    high = np.maximum(np.minimum(corner + np.array(size), shape), low)
    return (
        tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)),
        tuple(slice(int(a - c), int(b - c)) for a, b, c in zip(low, high, corner, strict=True)),
    )
