"""Simulated tomograms through the network: what references, the space of comparison and calibrations are made from.

Molecules of interest (if any) lie in a crowd of library molecules that cannot be one of them, in several small tomograms
taken as the user's were, over the range of defocus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from tomotwin_core.embedding.dense import DenseEmbedder
from tomotwin_core.errors import UserError
from tomotwin_core.evaluation import rightness_in_order, tolerance_A
from tomotwin_core.model import STRIDE, WINDOW, Model
from tomotwin_core.picking.location import LocationSettings, peaks_of, suppressed
from tomotwin_core.picking.references import ReferenceSet, Space
from tomotwin_core.progress import progress
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.experiment import SimulatedTomogram, simulate_tomogram
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.sample import even_copies
from tomotwin_core.structures.density import Density
from tomotwin_core.structures.library import DensityLibrary, load_library
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, at_detail, normalise_local

# Background is sampled at so many places of each tomogram, and counts as such from this far from any centre on.
_BACKGROUND_PLACES = 4000
_AWAY_STEPS = 3.0


@dataclass(frozen=True)
class ReferenceSettings:
    """shape of a simulated tomogram in model voxels; how many make prototypes and how many calibrate; prototypes per
    target; crowd: other molecules beside the targets; defocus range over which the tomograms are spread."""

    shape: tuple[int, int, int] = (60, 144, 144)
    tomograms: int = 5
    prototypes: int = 1
    crowd: int = 10
    occupied: float = 0.2
    defocus_um: tuple[float, float] = (2.5, 5.0)
    voxel_size_A: float = MODEL_VOXEL_SIZE_A
    seed: int = 1


@dataclass(frozen=True)
class Seen:
    """A simulated tomogram through the network: the whole field, the embeddings at true centres with their labels, and
    some at places away from all particles."""

    tomogram: SimulatedTomogram
    field: np.ndarray
    at_truth: np.ndarray
    label: np.ndarray
    background: np.ndarray


def simulated_world(
    densities: Mapping[str, Density],
    model: Model,
    acquisition: Acquisition,
    settings: ReferenceSettings,
    device: str = "cpu",
) -> list[Seen]:
    """Simulate `densities` in a crowd and embed the tomograms; the same seed gives the same tomograms.

    Raises UserError for a density that is wider than the network's window.
    """
    for name, density in densities.items():
        require_seen_whole(name, density)
    rng = np.random.default_rng(settings.seed)
    embedder = DenseEmbedder(model.network, device)
    simulated = _simulate(densities, acquisition, settings, rng, device)
    seen = []
    for tomogram in progress(simulated, desc="embedding references", unit="tomograms"):
        embeddings, _ = embedder.whole(normalise_local(-at_detail(tomogram.volume, settings.voxel_size_A)))
        seen.append(_seen(tomogram, embeddings, rng))
    return seen


def require_seen_whole(name: str, density: Density) -> None:
    """A UserError for a molecule that is wider than the network's window."""
    if density.diameter_A > WINDOW * MODEL_VOXEL_SIZE_A:
        raise UserError(
            f"{name}: {density.diameter_A:.0f} A across, wider than the network's window of {WINDOW * MODEL_VOXEL_SIZE_A:.0f} A; "
            "give a smaller part of it as the reference"
        )


def space_of(seen: Sequence[Seen]) -> Space:
    """The space in which copies of one molecule, of all molecules there, scatter alike in all directions."""
    return Space.fitted(*examples_of(seen), np.concatenate([s.background for s in seen]))


def examples_of(seen: Sequence[Seen]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, 32) at true centres and their labels (n,)."""
    return np.concatenate([s.at_truth for s in seen]), np.concatenate([s.label for s in seen])


def judged_peaks(
    references: ReferenceSet, seen: Seen, location: LocationSettings
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Per target its peaks in a simulated tomogram: scores, which are right, and positions x, y, z in its voxels."""
    spacing = STRIDE * MODEL_VOXEL_SIZE_A
    peaks = suppressed(peaks_of(references.similarity(seen.field), location), references, spacing, location)
    judged = []
    for index, target in enumerate(references.targets):
        own = peaks.select(peaks.target == index)
        xyz = own.zyx[:, ::-1] * STRIDE
        truth = seen.tomogram.truth.xyz[seen.tomogram.truth.label == target.name]
        right = rightness_in_order(xyz, truth, tolerance_A(target.diameter_A) / MODEL_VOXEL_SIZE_A)
        judged.append((own.score, right, xyz))
    return judged


def _seen(tomogram: SimulatedTomogram, embeddings: np.ndarray, rng: np.random.Generator) -> Seen:
    grid = np.array(embeddings.shape[:3])
    centres = tomogram.truth.xyz[:, ::-1] / STRIDE
    index = np.clip(np.round(centres).astype(int), 0, grid - 1)
    places = rng.integers(0, grid, (_BACKGROUND_PLACES, 3))
    if len(centres):
        distance, _ = cKDTree(centres).query(places)
        places = places[distance > _AWAY_STEPS]
    return Seen(tomogram, embeddings, embeddings[tuple(index.T)], tomogram.truth.label, embeddings[tuple(places.T)])


def _simulate(
    densities: Mapping[str, Density],
    acquisition: Acquisition,
    settings: ReferenceSettings,
    rng: np.random.Generator,
    device: str,
) -> list[SimulatedTomogram]:
    library = load_library()
    crowd = _crowd(library, densities, settings.crowd, rng)
    molecules = Molecules({**crowd, **densities}, MODEL_VOXEL_SIZE_A)
    depth, height, width = settings.shape
    slab = int(0.9 * depth)
    masses = {n: d.mass_kDa for n, d in molecules.densities.items()}
    copies = even_copies(masses, settings.occupied * slab * height * width, 4, 20)
    sample = SampleSettings(settings.shape, MODEL_VOXEL_SIZE_A, slab * MODEL_VOXEL_SIZE_A, copies, occupied=0.4)
    defoci = np.linspace(*settings.defocus_um, settings.tomograms)
    made = []
    for index, defocus in enumerate(progress(defoci, desc="simulating references", unit="tomograms")):
        taken = replace(acquisition, defocus_um=float(defocus))
        made.append(simulate_tomogram(molecules, sample, taken, rng, f"reference_{index}", device))
    return made


def _crowd(
    library: DensityLibrary, densities: Mapping[str, Density], count: int, rng: np.random.Generator
) -> dict[str, Density]:
    """Library molecules that cannot be one of the targets: other mass or other size."""
    ids = [i for i in library.ids("train") if not any(_alike(library, i, d) for d in densities.values())]
    chosen = rng.permutation(ids)[:count]
    return {f"crowd:{i}": library.density(str(i)) for i in chosen}


def _alike(library: DensityLibrary, id: str, density: Density) -> bool:
    entry = library.entries[id]
    return (
        abs(np.log(entry.mass_kDa / density.mass_kDa)) < 0.25
        and abs(np.log(entry.diameter_A / density.diameter_A)) < 0.15
    )
