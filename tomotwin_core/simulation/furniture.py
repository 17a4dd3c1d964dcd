"""What lies in a sample beside molecules: gold fiducials and the edge of a holey carbon film."""

from __future__ import annotations

import numpy as np

from tomotwin_core.simulation.molecules import RotatedCopy
from tomotwin_core.simulation.sample import Sample
from tomotwin_core.structures.density import SCATTERING_A_PER_DA

# Elastic scattering lengths at zero angle, f_e(0) in A (Doyle and Turner 1968), per atomic mass: of gold, of carbon.
# What ice has in the same room (0.93 g/cm^3, two H and one O) goes off.
_DA_PER_A3_OF_G_PER_CM3 = 0.6022
_GOLD_A_PER_DA, _CARBON_A_PER_DA, _WATER_A_PER_DA = 10.57 / 196.97, 2.51 / 12.01, 3.04 / 18.015
_GOLD_G_PER_CM3, _CARBON_G_PER_CM3, _ICE_G_PER_CM3 = 19.3, 2.0, 0.93
# Holes of the usual grids are 1.2 or 2 um wide; the rim of one is rough by some nm.
_HOLE_RADIUS_A, _RIM_SIGMA_A, _RIM_WAVES = (6000.0, 10000.0), 15.0, 24


def contrast_Da_per_A3(g_per_cm3: float, scattering_A_per_Da: float) -> float:
    """What a material in ice scatters above the ice that it displaces, in the unit of a sample: Da of molecule per A^3."""
    ice = _ICE_G_PER_CM3 * _DA_PER_A3_OF_G_PER_CM3 * _WATER_A_PER_DA
    return (g_per_cm3 * _DA_PER_A3_OF_G_PER_CM3 * scattering_A_per_Da - ice) / SCATTERING_A_PER_DA


def add_gold(sample: Sample, rng: np.random.Generator, radius_A: float | None = None) -> bool:
    """One gold bead (5-10 nm across) at a free place; listed in the truth as `gold`."""
    radius = (radius_A or rng.uniform(25, 50)) / sample.voxel_size_A
    half = int(np.ceil(radius)) + 1
    axis = np.arange(-half, half + 1)
    distance = np.sqrt(sum(a.astype(float) ** 2 for a in np.meshgrid(axis, axis, axis)))
    share = np.clip(radius - distance + 0.5, 0, 1)
    values = share * contrast_Da_per_A3(_GOLD_G_PER_CM3, _GOLD_A_PER_DA) * sample.voxel_size_A**3
    return sample.place("gold", RotatedCopy(values.astype(np.float32), values > 0, np.eye(3), np.zeros(3)), rng)


def add_carbon_edge(
    sample: Sample, rng: np.random.Generator, thickness_A: float = 150.0, share: float | None = None
) -> bool:
    """The amorphous film of a holey grid reaches into the field: it covers what lies outside a hole.

    thickness_A : of the film, 120-200 A usually; it lies on the bottom of the ice.  share : of the field that is carbon,
    about; drawn from 0.1 to 0.35 without one.  The film is grainy as randomly placed atoms are. Returns False where
    something is in the way; labelled as `carbon`.
    """
    nz, ny, nx = sample.volume.shape
    y, x = np.meshgrid(np.arange(ny, dtype=float), np.arange(nx, dtype=float), indexing="ij")
    direction, radius = rng.uniform(0, 2 * np.pi), rng.uniform(*_HOLE_RADIUS_A) / sample.voxel_size_A
    along = np.array([np.sin(direction), np.cos(direction)])
    # The hole's centre lies so far back along `direction` that the wanted share of the field is outside the hole.
    from_far = (y - ny / 2 + radius * along[0]) ** 2 + (x - nx / 2 + radius * along[1]) ** 2
    edge = np.quantile(np.sqrt(from_far), 1 - (share if share is not None else rng.uniform(0.1, 0.35)))
    angle = np.arctan2(y - ny / 2 + radius * along[0], x - nx / 2 + radius * along[1])
    waves = np.arange(1, _RIM_WAVES + 1)
    rough = rng.normal(size=_RIM_WAVES) / np.sqrt(_RIM_WAVES / 2) * _RIM_SIGMA_A / sample.voxel_size_A
    # Waves of 30 to 1 times the rim's seen length.
    seen = max(ny, nx) / radius
    phases = rng.uniform(0, 2 * np.pi, _RIM_WAVES)
    rim = edge + sum(r * np.cos(2 * np.pi * w * angle / seen + p) for r, w, p in zip(rough, waves, phases, strict=True))
    outside = np.clip(np.sqrt(from_far) - rim + 0.5, 0, 1)
    z = np.arange(nz, dtype=float)[:, None, None]
    low, high = sample.ice.bottom, np.minimum(sample.ice.bottom + thickness_A / sample.voxel_size_A, nz - 0.5)
    film = (np.clip(np.minimum(high, z + 0.5) - np.maximum(low, z - 0.5), 0, 1) * outside).astype(np.float32)
    body = film > 0.5
    if not body.any() or (sample.labels[body] != 0).any():
        return False
    voxel_A3 = sample.voxel_size_A**3
    atoms = _CARBON_G_PER_CM3 * _DA_PER_A3_OF_G_PER_CM3 / 12.01 * voxel_A3
    # An atom's share of the scattering of the film, before the ice goes off: Poisson noise of the number of atoms.
    grain = 12.01 * _CARBON_A_PER_DA / SCATTERING_A_PER_DA * np.sqrt(atoms)
    mean = contrast_Da_per_A3(_CARBON_G_PER_CM3, _CARBON_A_PER_DA) * voxel_A3
    in_film = film > 0
    share_of = film[in_film]
    sample.volume[in_film] += share_of * mean + np.sqrt(share_of) * grain * rng.standard_normal(
        share_of.size, dtype=np.float32
    )
    sample.claim("carbon", (slice(None),) * 3, body)
    return True
