"""One simulated tomogram with its truth, and a data set of them on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from tomotwin_core.coordinates import Coordinates, write_coordinates
from tomotwin_core.files import atomic_path, provenance
from tomotwin_core.progress import progress
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.building import SampleSettings, build_sample
from tomotwin_core.simulation.microscope import reconstruct, take_tilt_series
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.sample import Sample
from tomotwin_core.structures.density import Density, at_voxel_size
from tomotwin_core.tomogram import write_mrc

__all__ = ["SampleSettings", "SimulatedTomogram", "simulate_dataset", "simulate_tomogram"]


@dataclass(frozen=True)
class SimulatedTomogram:
    """volume float32 [z, y, x], protein dark; truth with labels, orientations and diameters; share of the slab that
    is occupied."""

    volume: np.ndarray
    truth: Coordinates
    occupied: float


def simulate_tomogram(
    molecules: Molecules,
    listed: set[str],
    settings: SampleSettings,
    acquisition: Acquisition,
    rng: np.random.Generator,
    name: str,
    device: str = "cpu",
) -> SimulatedTomogram:
    """Fill a slab with copies of all molecules, image and reconstruct it.

    molecules : at `settings.voxel_size_A`.  listed : the names that appear in the truth (the rest is crowd).
    """
    thickness = max(round(settings.thickness_A / settings.voxel_size_A), 1)
    # The tilted beam brings in what lies beside the field of view: the sample is wider than the tomogram across the
    # tilt axis.
    margin = min(int(0.15 * settings.shape[2]), int(thickness))
    sample = build_sample(settings, molecules, rng, margin)
    generator = torch.Generator(device=device).manual_seed(int(rng.integers(2**62)))
    series = take_tilt_series(torch.from_numpy(sample.volume).to(device), settings.voxel_size_A, acquisition, generator)
    volume = reconstruct(series, acquisition).cpu().numpy()[:, :, margin : margin + settings.shape[2]]
    return SimulatedTomogram(
        np.ascontiguousarray(volume),
        _truth(sample, molecules, listed, settings, margin, name),
        sample.occupied_fraction,
    )


def _truth(
    sample: Sample, molecules: Molecules, listed: set[str], settings: SampleSettings, margin: int, name: str
) -> Coordinates:
    xyz = np.array(sample.positions, float).reshape(-1, 3) - (margin, 0, 0)
    limit = np.array(settings.shape[::-1]) - 1
    keep = [n in listed and bool(((p >= 0) & (p <= limit)).all()) for n, p in zip(sample.names, xyz, strict=True)]
    names = [n for n, k in zip(sample.names, keep, strict=True) if k]
    rotations = np.array(sample.rotations, np.float32).reshape(-1, 3, 3)[np.array(keep, bool)]
    return Coordinates.from_arrays(
        xyz[np.array(keep, bool)],
        settings.voxel_size_A,
        shape=settings.shape,
        tomogram=name,
        label=names,
        diameter_A=[molecules.densities[n].diameter_A for n in names],
        rotation=rotations,
    )


def simulate_dataset(
    out: Path,
    densities: Mapping[str, Density],
    settings: SampleSettings,
    acquisition: Acquisition,
    n_tomograms: int,
    seed: int,
    defocus_range_um: tuple[float, float] | None = None,
    references: bool = False,
    device: str = "cpu",
    prefix: str = "tomo",
) -> list[Path]:
    """Write NAME.mrc and NAME_truth.star for each tomogram, references/SPECIES.mrc if asked, and simulation.json last.

    Tomogram i depends on (seed, i) and the settings alone.  Each truth carries a fingerprint of all that made it and is
    written after its tomogram: what is there already, complete and made alike, is kept, so an interrupted data set
    goes on.
    """
    made_by = _made_by(seed, settings, acquisition, defocus_range_um, densities)
    fingerprint = _fingerprint(made_by, densities)
    molecules = Molecules(densities, settings.voxel_size_A)
    written = []
    if references:
        for species, density in densities.items():
            coarse = at_voxel_size(density, settings.voxel_size_A)
            write_mrc(out / "references" / f"{species}.mrc", coarse.values, settings.voxel_size_A)
    for index in progress(range(n_tomograms), desc="simulating", unit="tomograms"):
        name = f"{prefix}_{index + 1:02d}"
        path, truth = out / f"{name}.mrc", out / f"{name}_truth.star"
        written.append(path)
        if path.is_file() and truth.is_file() and fingerprint in truth.read_text(errors="replace"):
            continue
        rng = np.random.default_rng((seed, index))
        defocus = float(rng.uniform(*defocus_range_um)) if defocus_range_um else acquisition.defocus_um
        taken = Acquisition(**{**asdict(acquisition), "defocus_um": defocus})
        made = simulate_tomogram(molecules, set(densities), settings, taken, rng, name, device)
        write_mrc(path, made.volume, settings.voxel_size_A)
        write_coordinates(truth, made.truth, simulation=fingerprint)
    with atomic_path(out / "simulation.json") as temporary:
        Path(temporary).write_text(json.dumps({**made_by, **provenance()}, indent=1) + "\n")
    return written


def _made_by(
    seed: int,
    settings: SampleSettings,
    acquisition: Acquisition,
    defocus_range_um: tuple[float, float] | None,
    densities: Mapping[str, Density],
) -> dict[str, object]:
    return {
        "seed": seed,
        "sample": asdict(settings),
        "acquisition": asdict(acquisition),
        "defocus_range_um": defocus_range_um,
        "species_kDa": {n: round(d.mass_kDa, 1) for n, d in densities.items()},
    }


def _fingerprint(made_by: dict[str, object], densities: Mapping[str, Density]) -> str:
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode())
    for name in sorted(densities):
        digest.update(densities[name].values.tobytes())
    return digest.hexdigest()[:16]
