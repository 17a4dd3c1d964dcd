"""Lipid bilayers and the proteins in them: vesicles, flat and curved sheets, membrane proteins seated the right way round.

A membrane is a surface in space, the middle of the bilayer, given as a function that tells the signed distance from it
and its outward normal. The bilayer is drawn as a profile of that distance: two layers of head groups, denser than ice,
about the chains, which are lighter (the profile that small-angle scattering and electron microscopy give; Nagle and
Tristram-Nagle 2000). A protein takes the room of the lipid that it displaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.sample import Sample, overlap

# Head groups and chains against ice (Da of protein contrast per A^3), and where they sit in a bilayer.
_HEAD_DA_PER_A3, _TAIL_DA_PER_A3 = 0.55, -0.10
_LEAFLET_A, _HEAD_SIGMA_A, _TAIL_SIGMA_A = 19.0, 5.0, 8.0
_HALF_BODY_A = _LEAFLET_A + _HEAD_SIGMA_A
_REACH_A = _LEAFLET_A + 4 * _HEAD_SIGMA_A
# Sampling at a voxel blurs as it does for molecules (structures.density.low_passed).
_VOXEL_BLUR = 0.45
_BLOCK = 16
# A protein is all there, and the lipid gone, where its density is above this share of its maximum: the contour of its body.
_LIPID_GONE = 0.2
_SEAT_TRIES = 25
_DRAWS = 12


class Surface(Protocol):
    """A closed or open surface: points (n, 3), x, y, z in A -> signed distance (n,) in A, positive outside, and outward
    unit normals (n, 3). Good to first order in the distance, which a bilayer needs."""

    def __call__(self, xyz_A: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...


@dataclass(frozen=True)
class Ellipsoid:
    """centre_A (3,); radii_A (3,) along the columns of `axes` (3, 3)."""

    centre_A: NDArray[np.float64]
    radii_A: NDArray[np.float64]
    axes: NDArray[np.float64]

    def __call__(self, xyz_A: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        local = (xyz_A - self.centre_A) @ self.axes + 1e-6
        level = np.linalg.norm(local / self.radii_A, axis=1)
        gradient = local / self.radii_A**2 / level[:, None]
        steepness = np.linalg.norm(gradient, axis=1)
        return (level - 1) / steepness, (gradient / steepness[:, None]) @ self.axes.T


@dataclass(frozen=True)
class Sheet:
    """A plane through centre_A (3,), outward along axes[:, 2], that rises and falls in waves over axes[:, 0] and
    axes[:, 1]: amplitude_A (k,), wave vectors per_A (k, 2) in rad per A, phase (k,). No waves: flat."""

    centre_A: NDArray[np.float64]
    axes: NDArray[np.float64]
    amplitude_A: NDArray[np.float64]
    per_A: NDArray[np.float64]
    phase: NDArray[np.float64]

    def __call__(self, xyz_A: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        local = (xyz_A - self.centre_A) @ self.axes
        angle = local[:, :2] @ self.per_A.T + self.phase
        height = np.cos(angle) @ self.amplitude_A
        slope = -(np.sin(angle) * self.amplitude_A) @ self.per_A
        gradient = np.column_stack([-slope, np.ones(len(local))])
        steepness = np.linalg.norm(gradient, axis=1)
        return (local[:, 2] - height) / steepness, (gradient / steepness[:, None]) @ self.axes.T


@dataclass(frozen=True)
class Membrane:
    """A bilayer in a sample: its surface, its label, and the voxels (n, 3) z, y, x that its middle passes through."""

    surface: Surface
    label: int
    middle: NDArray[np.intp]
    voxel_size_A: float

    def points(self, count: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Random points on the surface (count, 3) x, y, z in voxels and the outward unit normals there (count, 3)."""
        at = self.middle[rng.integers(len(self.middle), size=count)][:, ::-1] + rng.uniform(-0.5, 0.5, (count, 3))
        xyz_A = at * self.voxel_size_A
        for _ in range(3):
            distance, normal = self.surface(xyz_A)
            xyz_A = xyz_A - distance[:, None] * normal
        return xyz_A / self.voxel_size_A, self.surface(xyz_A)[1]


def add_vesicle(
    sample: Sample, rng: np.random.Generator, radius_A: float | None = None, cut: bool = False
) -> Membrane | None:
    """A lipid vesicle of 200-700 A radius; squashed until it fits in the ice, or `cut` by the faces of the ice as in a
    lamella. The sides of the field may cut it. None where there was no room."""
    for _ in range(_DRAWS):
        radius = radius_A or rng.uniform(200.0, 700.0)
        _, ny, nx = sample.volume.shape
        y, x = rng.uniform(0, ny - 1), rng.uniform(0, nx - 1)
        low, high = (float(s[int(y), int(x)]) * sample.voxel_size_A for s in (sample.ice.bottom, sample.ice.top))
        height = radius * rng.uniform(0.7, 1.0)
        reach = 0.0 if cut else min(height + _REACH_A, (high - low) / 2)
        if not cut:
            # Flatter than to a third is no vesicle any more: thin ice cuts it.
            height = max(reach - _REACH_A, radius / 3)
        centre = np.array([x * sample.voxel_size_A, y * sample.voxel_size_A, rng.uniform(low + reach, high - reach)])
        turn = Rotation.from_euler("z", rng.uniform(0, np.pi)).as_matrix()
        radii = np.array([radius, radius * rng.uniform(0.8, 1.0), height])
        membrane = draw(sample, Ellipsoid(centre, radii, turn), "vesicle")
        if membrane is not None:
            return membrane
    return None


def add_sheet(sample: Sample, rng: np.random.Generator, curved: bool | None = None) -> Membrane | None:
    """A membrane right through the field, steep in the ice as cell membranes in lamellae are seen, flat or `curved` (waves
    of 150-600 nm); without a choice one or the other. None where there was no room."""
    for _ in range(_DRAWS):
        nz, ny, nx = sample.volume.shape
        place = (rng.uniform(0.15, 0.85) * nx, rng.uniform(0.15, 0.85) * ny, (nz - 1) / 2)
        # The normal lies within 35 degrees of the plane: membranes along the plane are hard to see and rarely picked.
        turn = Rotation.from_euler(
            "ZYZ", [rng.uniform(0, 2 * np.pi), np.pi / 2 + np.deg2rad(rng.uniform(-35, 35)), rng.uniform(0, 2 * np.pi)]
        ).as_matrix()
        waves = rng.integers(2, 5) if (rng.random() < 0.5 if curved is None else curved) else 0
        length = rng.uniform(1500.0, 6000.0, waves)
        direction = rng.uniform(0, 2 * np.pi, waves)
        per_A = 2 * np.pi / length[:, None] * np.column_stack([np.cos(direction), np.sin(direction)])
        amplitude = rng.uniform(0.1, 0.35, waves) * length / (2 * np.pi)
        sheet = Sheet(
            np.array(place) * sample.voxel_size_A, turn, amplitude, per_A, rng.uniform(0, 2 * np.pi, int(waves))
        )
        membrane = draw(sample, sheet, "membrane")
        if membrane is not None:
            return membrane
    return None


def draw(sample: Sample, surface: Surface, name: str) -> Membrane | None:
    """Draw a bilayer along a surface, inside the ice; None, and nothing drawn, where anything is in its way."""
    pieces = []
    for box, xyz_A in _blocks_near(sample, surface):
        distance = surface(xyz_A)[0].reshape([s.stop - s.start for s in box])
        share = sample.ice.mask_of(box)
        body = (np.abs(distance) < max(_HALF_BODY_A, 0.5 * sample.voxel_size_A)) & (share > 0.5)
        if sample.labels[box][body].any():
            return None
        pieces.append((box, distance, share, body))
    if not any(body.any() for *_, body in pieces):
        return None
    whole = tuple(slice(0, n) for n in sample.volume.shape)
    label = sample.claim(name, whole, np.zeros(sample.volume.shape, bool))
    middle = []
    for box, distance, share, body in pieces:
        sample.volume[box] += (_profile(distance, sample.voxel_size_A) * share).astype(np.float32)
        sample.labels[box][body] = label
        sample.n_taken += int(np.count_nonzero(body))
        corner = [s.start for s in box]
        middle.append(np.argwhere((np.abs(distance) < 0.6 * sample.voxel_size_A) & (share > 0.99)) + corner)
    return Membrane(surface, label, np.concatenate(middle), sample.voxel_size_A)


def seat(
    sample: Sample,
    membrane: Membrane,
    molecules: Molecules,
    name: str,
    rng: np.random.Generator,
    side: str = "outside",
) -> bool:
    """Put one copy of a membrane protein into a bilayer at a random place, its normal along the membrane's and its turn
    about it random; lipid where the protein is goes.

    side : where its larger part comes to lie, outside, inside or random. Returns whether a free place was found.
    """
    frame = molecules.densities[name].membrane
    if frame is None or not len(membrane.middle):
        return False
    voxel_A = sample.voxel_size_A
    points, normals = membrane.points(_SEAT_TRIES, rng)
    for point, normal in zip(points, normals, strict=True):
        nearest = tuple(np.round(point[::-1]).astype(int))
        if not _inside(nearest, sample.volume.shape) or sample.labels[nearest] != membrane.label:
            continue
        outwards = side == "outside" or (side == "random" and rng.random() < 0.5)
        rotation = _turned_onto(np.array(frame.normal), normal if outwards else -normal, rng)
        position = point - rotation @ np.array(frame.centre_A) / voxel_A
        centre = np.round(position[::-1]).astype(np.intp)
        # Turning a molecule is what takes the time: places that cannot be are left before that.
        if not _inside(tuple(centre), sample.volume.shape) or sample.labels[tuple(centre)] not in (0, membrane.label):
            continue
        copy = molecules.turned(name, rotation, position - centre[::-1])
        box, inner = overlap(centre - np.array(copy.body.shape) // 2, copy.body.shape, sample.volume.shape)
        body, values = copy.body[inner], copy.values[inner]
        there = sample.labels[box]
        # Its soluble part keeps out of the ice's faces like any molecule's centre does.
        if ((there[body] != 0) & (there[body] != membrane.label)).any() or sample.ice.mask_of(box)[body].mean() < 0.5:
            continue
        gone = np.clip(values / (_LIPID_GONE * copy.values.max()), 0, 1)
        sample.volume[box] += values - gone * _lipid(sample, membrane, box)
        sample.record(name, copy, centre, sample.claim(name, box, body))
        return True
    return False


def _lipid(sample: Sample, membrane: Membrane, box: tuple[slice, ...]) -> NDArray[np.float32]:
    distance = membrane.surface(_points_of(box, sample.voxel_size_A))[0].reshape([s.stop - s.start for s in box])
    return (_profile(distance, sample.voxel_size_A) * sample.ice.mask_of(box)).astype(np.float32)


def _profile(distance_A: NDArray[np.float64], voxel_size_A: float) -> NDArray[np.float64]:
    """The bilayer's density against ice in Da per voxel, at distances from its middle."""

    def layer(centre_A: float, sigma_A: float) -> NDArray[np.float64]:
        blurred = np.hypot(sigma_A, _VOXEL_BLUR * voxel_size_A)
        return np.asarray(sigma_A / blurred * np.exp(-0.5 * ((distance_A - centre_A) / blurred) ** 2))

    heads = layer(_LEAFLET_A, _HEAD_SIGMA_A) + layer(-_LEAFLET_A, _HEAD_SIGMA_A)
    return (_HEAD_DA_PER_A3 * heads + _TAIL_DA_PER_A3 * layer(0.0, _TAIL_SIGMA_A)) * voxel_size_A**3


def _blocks_near(sample: Sample, surface: Surface) -> Iterator[tuple[tuple[slice, ...], NDArray[np.float64]]]:
    """Blocks of the volume that the bilayer may pass through, with the places (n, 3) of their voxels in A."""
    shape, voxel_A = sample.volume.shape, sample.voxel_size_A
    corners = np.stack(
        np.meshgrid(*(np.arange(0, n, _BLOCK) for n in shape), indexing="ij"),
        axis=-1,
    ).reshape(-1, 3)
    distance, _ = surface((corners[:, ::-1] + (_BLOCK - 1) / 2) * voxel_A)
    reach = max(_REACH_A, 2 * voxel_A) + 0.5 * np.sqrt(3) * _BLOCK * voxel_A
    # Away from the surface its first-order distance is too small or too large by the ratio of an ellipsoid's radii.
    for corner in corners[np.abs(distance) < 1.5 * reach]:
        box = tuple(slice(int(c), int(min(c + _BLOCK, n))) for c, n in zip(corner, shape, strict=True))
        yield box, _points_of(box, voxel_A)


def _points_of(box: tuple[slice, ...], voxel_size_A: float) -> NDArray[np.float64]:
    z, y, x = np.meshgrid(*(np.arange(s.start, s.stop, dtype=float) for s in box), indexing="ij")
    return np.column_stack([x.ravel(), y.ravel(), z.ravel()]) * voxel_size_A


def _turned_onto(
    direction: NDArray[np.float64], target: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """A rotation (3, 3) that takes one unit vector onto another, uniform among those."""
    spin = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi)).as_matrix()
    return np.asarray(_frame_along(target) @ spin @ _frame_along(direction).T)


def _frame_along(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """A right-handed frame (3, 3) whose third column is a unit vector."""
    across = np.linalg.svd(direction[None])[2][1]
    return np.column_stack([across, np.cross(direction, across), direction])


def _inside(zyx: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return all(0 <= i < n for i, n in zip(zyx, shape, strict=True))
