"""The slab of vitreous ice: two surfaces over the plane, so that it can be thick or thin, tilted and uneven."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# The longest and the shortest wave of an uneven surface, as shares of the field's longer side: ice over a hole thickens
# towards the rim over the whole hole (Noble et al. 2018), and is smooth on the scale of a molecule.
_LONGEST_WAVE, _SHORTEST_WAVE = 2.0, 0.35
_WAVES = 12


@dataclass(frozen=True)
class Ice:
    """The two surfaces of the ice as heights over the plane.

    bottom, top : float32 [y, x], z in voxels. The centre of voxel z lies at height z, so a slab that fills a box of nz
    voxels reaches from -0.5 to nz - 0.5.
    """

    bottom: NDArray[np.float32]
    top: NDArray[np.float32]

    @classmethod
    def flat(
        cls,
        shape: tuple[int, int, int],
        thickness_vox: float,
        tilt_deg: tuple[float, float] = (0.0, 0.0),
        unevenness_vox: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> Ice:
        """A slab through the middle of a box (z, y, x).

        Parameters
        ----------
        thickness_vox : measured along the slab's normal.
        tilt_deg : right-handed turns about +x and +y: the slab rises along +y and falls along +x.
        unevenness_vox : standard deviation of each surface about its plane, smooth waves over the field drawn from `rng`.

        Ice that would stick out of the box is cut off at its faces; the surfaces never cross.
        """
        nz, ny, nx = shape
        y, x = np.meshgrid(np.arange(ny) - (ny - 1) / 2, np.arange(nx) - (nx - 1) / 2, indexing="ij")
        slope_y, slope_x = np.tan(np.deg2rad(tilt_deg[0])), -np.tan(np.deg2rad(tilt_deg[1]))
        middle = (nz - 1) / 2 + slope_y * y + slope_x * x
        half = thickness_vox / 2 * np.sqrt(1 + slope_y**2 + slope_x**2)
        bottom, top = middle - half, middle + half
        if unevenness_vox > 0:
            rng = rng or np.random.default_rng()
            bottom = bottom + unevenness_vox * _waves(y, x, rng)
            top = np.maximum(top + unevenness_vox * _waves(y, x, rng), bottom)
        return cls(np.clip(bottom, -0.5, nz - 0.5).astype(np.float32), np.clip(top, -0.5, nz - 0.5).astype(np.float32))

    @cached_property
    def thickness(self) -> NDArray[np.float32]:
        """Thickness along z at every place, float32 [y, x] in voxels."""
        return self.top - self.bottom

    @cached_property
    def thickest(self) -> float:
        return float(self.thickness.max())

    def mask(self, nz: int) -> NDArray[np.float32]:
        """Share of every voxel that is ice, float32 [z, y, x]; its sum over z is `thickness`."""
        return self.mask_of((slice(0, nz), slice(None), slice(None)))

    def mask_of(self, box: tuple[slice, ...]) -> NDArray[np.float32]:
        """The same of a part of the volume, slices z, y, x."""
        z = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None, None]
        bottom, top = self.bottom[box[1:]], self.top[box[1:]]
        return np.clip(np.minimum(top, z + 0.5) - np.maximum(bottom, z - 0.5), 0.0, 1.0)


def _waves(y: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth random surface [y, x] of mean 0 and standard deviation 1 over the field."""
    side = max(y.shape)
    surface = np.zeros(y.shape)
    for _ in range(_WAVES):
        length = side * np.exp(rng.uniform(np.log(_SHORTEST_WAVE), np.log(_LONGEST_WAVE)))
        direction, phase = rng.uniform(0, 2 * np.pi, 2)
        # Long waves are high, as in the bending of a film.
        surface += length / side * np.cos(2 * np.pi / length * (y * np.sin(direction) + x * np.cos(direction)) + phase)
    surface -= surface.mean()
    return np.asarray(surface / max(float(surface.std()), 1e-12))
