"""One simulated tomogram with its truth, and everything that can be asked of it beside the tomogram."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.building import SampleSettings, build_sample
from tomotwin_core.simulation.microscope import take_tilt_series
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.reconstruction import reconstruct
from tomotwin_core.simulation.sample import Crowding, Sample, crowding

# What a sample may hold beside molecules, in the order of their numbers in a label volume.
FURNITURE = ("membrane", "vesicle", "actin", "microtubule", "gold", "carbon")


@dataclass(frozen=True)
class Extras:
    """What is wanted beside tomogram and truth."""

    tilt_series: bool = False
    labels: bool = False
    noise_free: bool = False


@dataclass(frozen=True)
class SimulatedTomogram:
    """A tomogram and what is known of it.

    volume : float32 [z, y, x], protein dark.  truth : the molecules, with orientations and diameters.  crowding : how
    densely the sample was filled, and copies of each species in the whole sample.
    If asked: images : float32 [tilt, y, x], the tilt series.  labels : int16 [z, y, x], numbers of `legend`.  noise_free :
    float32 [z, y, x], the tomogram without noise and alignment errors.
    """

    volume: NDArray[np.float32]
    truth: Coordinates
    crowding: Crowding
    images: NDArray[np.float32] | None = None
    labels: NDArray[np.int16] | None = None
    noise_free: NDArray[np.float32] | None = None


def simulate_tomogram(
    molecules: Molecules,
    settings: SampleSettings,
    acquisition: Acquisition,
    rng: np.random.Generator,
    name: str,
    device: str = "cpu",
    extras: Extras | None = None,
    tell: Callable[[str], None] = lambda stage: None,
) -> SimulatedTomogram:
    """Fill a slab of ice with molecules and whatever else is asked for, image and reconstruct it.

    Parameters
    ----------
    molecules
        At `settings.voxel_size_A`; all of them are listed in the truth.
    rng
        The same one gives the same tomogram, whatever the extras.
    name
        Of the tomogram.
    tell
        Called with the name of each stage as it begins.
    """
    extras = extras or Extras()
    _, ny, nx = settings.shape
    margin = margin_vox(settings)
    tell("sample")
    sample = build_sample(settings, molecules, rng, margin)
    seed = int(rng.integers(2**62))

    def tomogram(noise: bool) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        tell("tilt series" if noise else "tilt series without noise")
        generator = torch.Generator(device=device).manual_seed(seed)
        density = torch.from_numpy(sample.volume).to(device)
        series = take_tilt_series(density, settings.voxel_size_A, acquisition, generator, noise, sample.ice)
        images = series.stack(nx, ny) if noise and extras.tilt_series else None
        tell("reconstruction")
        volume = reconstruct(series, acquisition)[:, :, margin : margin + nx]
        return np.ascontiguousarray(volume.cpu().numpy()), images

    volume, images = tomogram(noise=True)
    return SimulatedTomogram(
        volume,
        _truth(sample, molecules, settings, margin, name),
        crowding(sample, {n: d.mass_kDa for n, d in molecules.densities.items()}),
        images,
        species_labels(sample, list(molecules.densities))[:, :, margin : margin + nx] if extras.labels else None,
        tomogram(noise=False)[0] if extras.noise_free else None,
    )


def margin_vox(settings: SampleSettings) -> int:
    """How much wider than the tomogram the sample is at either side: the tilted beam brings in what lies there."""
    return min(int(0.15 * settings.shape[2]), max(round(settings.thickness_A / settings.voxel_size_A), 1))


def legend(species: Sequence[str]) -> dict[str, int]:
    """The numbers in a label volume: molecules in their order from 1, then `FURNITURE`; 0 is ice."""
    return {name: number for number, name in enumerate([*species, *FURNITURE], start=1)}


def species_labels(sample: Sample, species: Sequence[str]) -> NDArray[np.int16]:
    """Which species each voxel of a sample belongs to, int16 [z, y, x] in the numbers of `legend`."""
    numbers = legend(species)
    of_body = np.array([0, *(numbers[name] for name in sample.structures)], np.int16)
    return of_body[sample.labels]


def _truth(sample: Sample, molecules: Molecules, settings: SampleSettings, margin: int, name: str) -> Coordinates:
    xyz = np.array(sample.positions, float).reshape(-1, 3) - (margin, 0, 0)
    inside = ((xyz >= 0) & (xyz <= np.array(settings.shape[::-1]) - 1)).all(axis=1)
    keep = inside & np.isin(sample.names, list(molecules.densities))
    names = np.array(sample.names, dtype=np.str_)[keep]
    return Coordinates.from_arrays(
        xyz[keep],
        settings.voxel_size_A,
        shape=settings.shape,
        tomogram=name,
        label=names,
        diameter_A=[molecules.densities[n].diameter_A for n in names],
        rotation=np.array(sample.rotations, np.float32).reshape(-1, 3, 3)[keep],
        mass_kDa=[molecules.densities[n].mass_kDa for n in names],
    )
