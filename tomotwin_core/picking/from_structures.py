"""References from structures or maps: simulate the target, look at it through the network.

All targets are simulated together, in a crowd of other molecules, in several small tomograms taken as the user's were.
The embeddings at the true centres make the prototypes, and with those of the crowd and of the background between the
space in which similarity is measured. Then each of these tomograms is picked with references made from the others, and
the score that gives the best F1 over all of them is the threshold proposed. No tomogram of the user takes part, so
nothing is tuned on what is picked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from tomotwin_core.embedding.dense import DenseEmbedder
from tomotwin_core.errors import UserError
from tomotwin_core.evaluation import rightness_in_order, tolerance_A
from tomotwin_core.model import STRIDE, WINDOW, Model
from tomotwin_core.picking.location import LocationSettings, Peaks, peaks_of, suppressed
from tomotwin_core.picking.references import ReferenceSet, Space, Target, prototypes_of
from tomotwin_core.progress import progress
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.experiment import SimulatedTomogram, simulate_tomogram
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.sample import even_copies
from tomotwin_core.structures.density import Density
from tomotwin_core.structures.library import DensityLibrary, load_library
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, normalise_local, resample

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


def references_from_densities(
    densities: Mapping[str, Density],
    model: Model,
    acquisition: Acquisition,
    settings: ReferenceSettings | None = None,
    device: str = "cpu",
    origins: Mapping[str, str] | None = None,
) -> ReferenceSet:
    """Targets with prototypes and proposed thresholds from densities by name, as they look under `acquisition`."""
    settings = settings or ReferenceSettings()
    for name, density in densities.items():
        if density.diameter_A > WINDOW * MODEL_VOXEL_SIZE_A:
            raise UserError(
                f"{name}: {density.diameter_A:.0f} A across, wider than the network's window of {WINDOW * MODEL_VOXEL_SIZE_A:.0f} A; "
                "give a smaller part of it as the reference"
            )
    embedder = DenseEmbedder(model.network, device)
    rng = np.random.default_rng(settings.seed)
    seen = []
    simulated = _simulate(densities, acquisition, settings, rng, device)
    for tomogram in progress(simulated, desc="embedding references", unit="tomograms"):
        embeddings, _ = embedder.whole(normalise_local(-_at_detail(tomogram.volume, settings.voxel_size_A)))
        seen.append(_seen(tomogram, embeddings, rng))
    for name in densities:
        if sum(int((s.label == name).sum()) for s in seen) < 3:
            raise UserError(
                f"{name}: could not be placed in a simulated tomogram; is the density that of one molecule of 20 to 300 A?"
            )
    blank = ReferenceSet(
        tuple(
            Target(n, np.zeros((1, 1)), d.diameter_A, origin=(origins or {}).get(n, "")) for n, d in densities.items()
        ),
        model.hash,
        {"acquisition": asdict(acquisition), "reference": asdict(settings)},
    )
    return _with_prototypes(_calibrated(blank, seen, settings), seen, settings)


@dataclass(frozen=True)
class _Seen:
    """A simulated tomogram through the network: the whole field, the embeddings at true centres with their labels, and
    some at places away from all particles."""

    tomogram: SimulatedTomogram
    field: np.ndarray
    at_truth: np.ndarray
    label: np.ndarray
    background: np.ndarray


def _seen(tomogram: SimulatedTomogram, embeddings: np.ndarray, rng: np.random.Generator) -> _Seen:
    grid = np.array(embeddings.shape[:3])
    centres = tomogram.truth.xyz[:, ::-1] / STRIDE
    index = np.clip(np.round(centres).astype(int), 0, grid - 1)
    places = rng.integers(0, grid, (_BACKGROUND_PLACES, 3))
    if len(centres):
        distance, _ = cKDTree(centres).query(places)
        places = places[distance > _AWAY_STEPS]
    return _Seen(tomogram, embeddings, embeddings[tuple(index.T)], tomogram.truth.label, embeddings[tuple(places.T)])


def _with_prototypes(references: ReferenceSet, seen: Sequence[_Seen], settings: ReferenceSettings) -> ReferenceSet:
    """The same targets with the space and the prototypes that these tomograms give."""
    embeddings = np.concatenate([s.at_truth for s in seen])
    label = np.concatenate([s.label for s in seen])
    space = Space.fitted(embeddings, label, np.concatenate([s.background for s in seen]))
    moved = space.transform(embeddings)
    targets = []
    for target in references.targets:
        own = moved[label == target.name]
        # A target that one fold lacks altogether matches nothing there.
        prototypes = prototypes_of(own, settings.prototypes, settings.seed) if len(own) else -moved[:1]
        targets.append(replace(target, prototypes=prototypes))
    return replace(references, targets=tuple(targets), space=space)


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


def _at_detail(volume: np.ndarray, voxel_size_A: float) -> np.ndarray:
    """A model-sized volume with the detail that a tomogram of `voxel_size_A` has left."""
    if voxel_size_A <= MODEL_VOXEL_SIZE_A:
        return volume
    coarse = resample(volume, MODEL_VOXEL_SIZE_A, voxel_size_A)
    return resample(coarse, voxel_size_A, MODEL_VOXEL_SIZE_A)


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


def _calibrated(references: ReferenceSet, seen: Sequence[_Seen], settings: ReferenceSettings) -> ReferenceSet:
    """Set each target's threshold to the score of the best F1 over all tomograms, each picked with references made from
    the others."""
    location = LocationSettings(min_score=-1.0)
    spacing = STRIDE * MODEL_VOXEL_SIZE_A
    picked: list[tuple[Peaks, SimulatedTomogram]] = []
    for index, left_out in enumerate(seen):
        fold = _with_prototypes(references, [*seen[:index], *seen[index + 1 :]], settings)
        peaks = suppressed(peaks_of(fold.similarity(left_out.field), location), fold, spacing, location)
        picked.append((peaks, left_out.tomogram))
    targets = []
    for index, target in enumerate(references.targets):
        right, scores, true = [], [], 0
        for peaks, tomogram in picked:
            own = peaks.target == index
            truth = tomogram.truth.xyz[tomogram.truth.label == target.name]
            tolerance = tolerance_A(target.diameter_A) / MODEL_VOXEL_SIZE_A
            right.append(rightness_in_order(peaks.zyx[own][:, ::-1] * STRIDE, truth, tolerance))
            scores.append(peaks.score[own])
            true += len(truth)
        threshold = _best_f1_score(np.concatenate(right), np.concatenate(scores), true) if right else float("nan")
        targets.append(replace(target, threshold=threshold))
    return replace(references, targets=tuple(targets))


def _best_f1_score(right: np.ndarray, scores: np.ndarray, n_true: int) -> float:
    """The threshold of the best F1, half-way to the next lower score, so that it does not sit on one pick."""
    if not right.any():
        return float("nan")
    order = np.argsort(-scores)
    hits = np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + n_true)
    best = int(f1.argmax())
    following = scores[order][min(best + 1, len(order) - 1)]
    return float((scores[order][best] + following) / 2)
