"""Density of a molecule on a grid, in Da per voxel.

Mass is a good measure of contrast: the elastic scattering of protein above the ice that it displaces is 0.075 A per
A^3 at 1.21 A^3 per Da, that of RNA 0.100 A per A^3 at 0.91 A^3 per Da; both give 0.091 A of electron scattering
length per Da (sums of the Doyle-Turner f_e(0) of the average residue and nucleotide, less ice at 0.93 g/cm^3). So a
density in Da per voxel becomes an electrostatic potential above ice by one factor, `POTENTIAL_V_A3_PER_DA`, whatever
the molecule is made of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from tomotwin_core.errors import UserError
from tomotwin_core.structures.judging import judged_map, require_molecule_sized
from tomotwin_core.structures.membrane_frame import MembraneFrame
from tomotwin_core.tomogram import open_tomogram, resample

SCATTERING_A_PER_DA = 0.091
# 47.878 V A^2 per A of scattering length (h^2 / 2 pi m e, Kirkland 2010).
POTENTIAL_V_A3_PER_DA = 47.878 * SCATTERING_A_PER_DA
# A giant virus has as much; a grid of more is asked for by mistake.
WIDEST_MOLECULE_A = 2500.0
# A residue seen through its CA alone is a blob of about this standard deviation.
POINT_SIGMA_A = 4.0
# Mass that a contour at this share of the maximum leaves out is solvent tail, not molecule.
_EXTENT_FRACTION = 0.2
# A grid of so many voxels a side takes 8 GB.
_MOST_VOXELS = 1000
_PROTEIN_A3_PER_DA = 1.21
# Maps of single-particle work are finer than any tomogram; at 10 A nothing below the working size is seen.
_FINEST_MAP_A, _WORKING_VOXEL_A = 0.2, 4.0
# The volume that the sum over the strongest density gives is this much too large in the median of 60 library molecules
# at 5, 8 and 13 A, whose masses it then tells to 9 % (standard deviation).
_VOLUME_BIAS = 1.055


@dataclass(frozen=True)
class Density:
    """A molecule on a cubic-voxel grid.

    values : float32 [z, y, x], Da per voxel; its sum is the mass. The molecule's centre of mass lies at (shape - 1) /
    2. voxel_size_A : edge of a voxel. sigma_A : standard deviation of the blur already in the values, so that a
    coarser grid blurs only by what is missing. membrane : where the bilayer lies about a membrane protein.
    told_diameter_A : its diameter, where that is told and not to be measured (averages, whose contour is uncertain).
    """

    values: np.ndarray
    voxel_size_A: float
    sigma_A: float = POINT_SIGMA_A
    membrane: MembraneFrame | None = None
    told_diameter_A: float | None = None

    @property
    def mass_kDa(self) -> float:
        # Averages out of tomograms have noise below solvent, too, which is no mass.
        return float(np.clip(self.values, 0, None).sum(dtype=np.float64)) / 1000.0

    @property
    def diameter_A(self) -> float:
        """Diameter of the sphere about the centre that holds 95 % of the molecule within its contour, unless it is told."""
        if self.told_diameter_A is not None:
            return self.told_diameter_A
        inside = np.argwhere(self.values > _EXTENT_FRACTION * self.values.max())
        radius = np.linalg.norm(inside - (np.array(self.values.shape) - 1) / 2, axis=1)
        return float(2 * np.quantile(radius, 0.95) * self.voxel_size_A + self.voxel_size_A)


def density_from_points(
    xyz_A: np.ndarray, mass_Da: np.ndarray, voxel_size_A: float, sigma_A: float = POINT_SIGMA_A
) -> Density:
    """Spread point masses over a grid and blur them with a Gaussian.

    xyz_A (n, 3) x, y, z; mass_Da (n,). The grid is the smallest cube of odd edge that holds the molecule, centred on
    its centre of mass.
    """
    if float(np.ptp(xyz_A, axis=0).max()) / voxel_size_A > _MOST_VOXELS:
        raise UserError(f"a molecule of more than {_MOST_VOXELS} voxels of {voxel_size_A:g} A a side is too large; give coarser voxels")
    centre = (xyz_A * mass_Da[:, None]).sum(0) / mass_Da.sum()
    zyx = ((xyz_A - centre) / voxel_size_A)[:, ::-1]
    widest = 2 * float(np.abs(zyx).max()) * voxel_size_A
    if not widest <= WIDEST_MOLECULE_A:
        raise UserError(
            f"the atoms reach {widest / 2:.3g} A from their middle, which no molecule does: correct their coordinates"
        )
    half = int(np.ceil(np.abs(zyx).max() + 3 * sigma_A / voxel_size_A)) + 1
    edge = 2 * half + 1
    grid = np.zeros(edge**3)
    low = np.floor(zyx).astype(int)
    fraction = zyx - low
    for corner in np.ndindex(2, 2, 2):  # trilinear: each point feeds the eight voxels around it
        weight = np.prod(np.where(np.array(corner) == 1, fraction, 1 - fraction), axis=1)
        index = np.ravel_multi_index(tuple((low + corner + half).T), (edge,) * 3)
        grid += np.bincount(index, weights=weight * mass_Da, minlength=edge**3)
    # The trilinear kernel already blurs by 1/6 voxel^2 on average.
    remaining = max(sigma_A**2 / voxel_size_A**2 - 1 / 6, 0.0) ** 0.5
    blurred = ndimage.gaussian_filter(grid.reshape((edge,) * 3), remaining, mode="constant")
    return crop_to_content(Density((blurred * mass_Da.sum() / blurred.sum()).astype(np.float32), voxel_size_A, sigma_A))


def density_from_map(
    volume: np.ndarray, voxel_size_A: float, mass_kDa: float | None = None, bilayer_at_A: float | None = None
) -> Density:
    """A density map [z, y, x], molecule bright, of any scale -> Density.

    Solvent is taken off at the median of the box's shell, noise below a tenth of the maximum is set to zero, the rest is
    centred on its centre of mass and scaled to `mass_kDa`; without one, to that of protein (1.21 A^3 per Da) in the
    volume that the map's sum fills at its strongest density.  bilayer_at_A : the map is one of a membrane protein
    whose bilayer lies across z so far above the middle voxel n // 2.
    """
    shell = np.ones(volume.shape, bool)
    shell[2:-2, 2:-2, 2:-2] = False
    values = np.asarray(volume, np.float64) - np.median(volume[shell])
    values = np.where(values > 0.1 * values.max(), values, 0.0)
    if not values.any():
        raise UserError("the density map has no voxel above its border; give a map with the molecule bright")
    if mass_kDa is None:
        plateau = float(np.quantile(values[values > 0], 0.99))
        volume_A3 = values.sum() / plateau * voxel_size_A**3 / _VOLUME_BIAS
        mass_kDa = volume_A3 / _PROTEIN_A3_PER_DA / 1000.0
    centre = np.array(ndimage.center_of_mass(values))
    half = int(np.ceil(np.abs(np.argwhere(values > 0) - centre).max())) + 2
    grid = np.stack(np.meshgrid(*(np.arange(-half, half + 1) + c for c in centre), indexing="ij"))
    centred = np.clip(ndimage.map_coordinates(values, grid, order=1, mode="constant"), 0, None)
    scaled = centred * (mass_kDa * 1000.0 / centred.sum())
    membrane = None
    if bilayer_at_A is not None:
        x, y, z = ((np.array(values.shape) // 2 - centre) * voxel_size_A)[::-1].round(2).tolist()
        z = round(z + bilayer_at_A, 2)
        height = (np.arange(values.shape[0]) - centre[0]) * voxel_size_A
        above = values[height > z].sum() >= values[height < z].sum()
        membrane = MembraneFrame((0.0, 0.0, 1.0 if above else -1.0), (x, y, z))
    return crop_to_content(Density(scaled.astype(np.float32), voxel_size_A, 0.5 * voxel_size_A, membrane))


def crop_to_content(density: Density, fraction: float = 0.004) -> Density:
    """Cut empty margins off, equally on all sides, so that the centre stays the centre."""
    content = np.argwhere(density.values > fraction * density.values.max())
    middle = (np.array(density.values.shape) - 1) // 2
    half = int(np.abs(content - middle).max())
    cut = tuple(slice(max(m - half, 0), m + half + 1) for m in middle)
    return replace(density, values=np.ascontiguousarray(density.values[cut]))


def at_voxel_size(density: Density, voxel_size_A: float) -> Density:
    """The same molecule on a grid of another voxel size, low-passed so that nothing aliases, mass kept."""
    blurred = low_passed(density, voxel_size_A)
    old_half = (density.values.shape[0] - 1) / 2
    half = int(np.ceil((old_half + 1) * density.voxel_size_A / voxel_size_A)) + 1
    axis = np.arange(-half, half + 1) * voxel_size_A / density.voxel_size_A + old_half
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    values = ndimage.map_coordinates(blurred, grid, order=1, mode="constant")
    values *= density.values.sum() / max(values.sum(), 1e-12)
    sigma_A = max(density.sigma_A, 0.45 * voxel_size_A)
    return crop_to_content(Density(values.astype(np.float32), voxel_size_A, sigma_A, density.membrane))


def low_passed(density: Density, voxel_size_A: float) -> np.ndarray:
    """The values on their own grid, blurred for sampling at `voxel_size_A` (Gaussian of 0.45 voxel in all)."""
    missing = max((0.45 * voxel_size_A) ** 2 - density.sigma_A**2, 0.0) ** 0.5 / density.voxel_size_A
    half = int(np.ceil(3 * missing))
    padded = np.pad(density.values, half)
    if missing < 0.05:
        return density.values
    blurred = ndimage.gaussian_filter(padded, missing, mode="constant")
    return blurred[half:-half, half:-half, half:-half] if half else blurred


def read_density_map(
    path: Path | str,
    voxel_size_A: float | None = None,
    mass_kDa: float | None = None,
    dark: bool = False,
    bilayer_at_A: float | None = None,
) -> Density:
    """An MRC map as a Density, molecule bright unless `dark`; what cannot be the map of a molecule is refused."""
    source = open_tomogram(path, voxel_size_A=voxel_size_A, finest_A=_FINEST_MAP_A)
    require_molecule_sized(path, source.shape, source.voxel_size_A)
    volume = source.slab(0, source.shape[0])
    if float(np.ptp(volume)) == 0.0:
        raise UserError(f"{path}: the map is constant; give a density map of one molecule")
    size = max(source.voxel_size_A, _WORKING_VOXEL_A)
    volume = judged_map(path, resample(-volume if dark else volume, source.voxel_size_A, size), size)
    return density_from_map(volume, size, mass_kDa, bilayer_at_A)
