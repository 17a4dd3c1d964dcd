"""Validation by the real thing: F1 per species on tomograms that are no part of the training, through embed, map,
locate and pick.

References are made as the TomoTwin paper makes them, from a few positions in the tomogram itself, which costs no
simulation. Each half of a tomogram is picked at the thresholds that were best in the other half. The tomograms are simulated once into a
folder, or are any that `tomotwin simulate` wrote. A species counts as seen when the training has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.embedding import DenseEmbedder
from tomotwin_core.errors import UserError
from tomotwin_core.evaluation import evaluate
from tomotwin_core.model.network import STRIDE, EmbeddingNetwork
from tomotwin_core.picking.location import LocationSettings, peaks_of, suppressed
from tomotwin_core.picking.references import ReferenceSet, Space, Target, prototypes_of
from tomotwin_core.picking.thresholds import pick
from tomotwin_core.progress import progress
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.experiment import simulate_tomogram
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, open_tomogram, write_mrc
from tomotwin_core.training.settings import ValidationSettings
from tomotwin_core.training.sources import normalised_on_disk

_SPACING_A = STRIDE * MODEL_VOXEL_SIZE_A
_SAMPLED = 20_000
_PROTOTYPES = 3


@dataclass(frozen=True)
class ValidationTomogram:
    """volume [z, y, x] as the network sees it; truth in voxels of 10 A."""

    volume: np.ndarray
    truth: Coordinates


def simulate_validation(
    folder: Path, library: DensityLibrary, trained: Sequence[str], settings: ValidationSettings, device: str = "cpu"
) -> None:
    """Write the validation tomograms, NAME.mrc and NAME_truth.star, unless the folder has them already."""
    rng = np.random.default_rng(settings.seed)
    known = [i for i in trained if i in library.entries]
    held_out = [i for i in library.ids("heldout") if i not in trained]
    groups = {"seen": (known, settings.seen), "unseen": (held_out, settings.unseen)}
    wanted = []
    for group, (ids, count) in groups.items():
        chosen = _spread(ids, library, count, rng)
        parts = np.array_split(rng.permutation(chosen), -(-len(chosen) // settings.per_tomogram)) if chosen else []
        wanted += [(f"{group}_{i:02d}", [str(s) for s in part]) for i, part in enumerate(parts, 1)]
    for index, (name, species) in enumerate(progress(wanted, desc="simulating validation", unit="tomograms")):
        path, truth = folder / f"{name}.mrc", folder / f"{name}_truth.star"
        if truth.is_file() and path.is_file():
            continue
        rng = np.random.default_rng((settings.seed, index))
        sample = SampleSettings(
            settings.shape, MODEL_VOXEL_SIZE_A, 0.85 * settings.shape[0] * MODEL_VOXEL_SIZE_A, settings.copies
        )
        made = simulate_tomogram(
            Molecules({i: library.density(i) for i in species}, MODEL_VOXEL_SIZE_A),
            settings=sample,
            acquisition=Acquisition(dose_e_per_A2=150.0, defocus_um=float(rng.uniform(2, 5))),
            rng=rng,
            name=name,
            device=device,
        )
        write_mrc(path, made.volume, MODEL_VOXEL_SIZE_A)
        write_coordinates(truth, made.truth)


def open_validation(folder: Path, cache: Path) -> list[ValidationTomogram]:
    """The tomograms of a folder with their truth; UserError where there are none."""
    truths = sorted(folder.glob("*_truth.star"))
    if not truths:
        raise UserError(f"{folder}: holds no NAME_truth.star; give a folder that `tomotwin simulate` wrote")
    found = []
    for file in truths:
        source = open_tomogram(file.with_name(file.name.removesuffix("_truth.star") + ".mrc"))
        table = read_coordinates(file, voxel_size_A=source.voxel_size_A, shape=source.shape)
        found.append(
            ValidationTomogram(normalised_on_disk(source, "dark", cache), table.to_voxel_size(MODEL_VOXEL_SIZE_A))
        )
    return found


def validate(
    network: EmbeddingNetwork,
    tomograms: Sequence[ValidationTomogram],
    trained: Sequence[str],
    examples: int = 8,
    masses: dict[str, float] | None = None,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """One row per species and tomogram: group (seen or unseen), species, mass_kDa, n_true, f1 of each
    half at the other half's best threshold, best_f1 over all thresholds of the whole."""
    embedder = DenseEmbedder(network, device)
    rows = []
    for tomogram in tomograms:
        embeddings, _ = embedder.whole(np.asarray(tomogram.volume, np.float32))
        references = references_in(embeddings, tomogram.truth, examples)
        candidates = _candidates(embeddings, references, tomogram.truth)
        for score in evaluate(_picks(candidates, tomogram.truth), tomogram.truth, candidates):
            rows.append(
                {
                    "group": "seen" if score.label in trained else "unseen",
                    "species": score.label,
                    "mass_kDa": (masses or {}).get(score.label, ""),
                    "n_true": score.n_true,
                    "f1": round(score.f1, 4),
                    "best_f1": round(score.best_f1, 4),
                }
            )
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Median F1 and mean best possible F1 of the seen and the unseen species."""
    figures = {}
    for group in ("seen", "unseen"):
        own = [r for r in rows if r["group"] == group]
        if own:
            figures[f"median_f1_{group}"] = float(np.median([r["f1"] for r in own]))
            figures[f"mean_best_f1_{group}"] = float(np.mean([r["best_f1"] for r in own]))
    return figures


def references_in(embeddings: np.ndarray, truth: Coordinates, examples: int, seed: int = 0) -> ReferenceSet:
    """A target for each label of the truth from up to `examples` of its positions, drawn at random; the space of
    comparison is that of the tomogram (see picking/from_positions.py)."""
    rng = np.random.default_rng(seed)
    flat = embeddings.reshape(-1, embeddings.shape[-1])
    sample = flat[rng.choice(len(flat), min(_SAMPLED, len(flat)), replace=False)]
    space = Space.fitted(sample, np.zeros(len(sample), int), sample)
    targets = []
    for name, part in truth.by_label().items():
        chosen = rng.permutation(len(part))[:examples]
        index = np.clip(np.round(part.xyz[chosen, ::-1] / STRIDE).astype(int), 0, np.array(embeddings.shape[:3]) - 1)
        prototypes = prototypes_of(space.transform(embeddings[tuple(index.T)]), _PROTOTYPES)
        targets.append(Target(name, prototypes, float(np.nanmedian(part.diameter_A))))
    return ReferenceSet(tuple(targets), "", space=space)


def _picks(candidates: Coordinates, truth: Coordinates) -> Coordinates:
    """The picks of each half, along x, at the thresholds that are best in the other."""
    assert truth.shape is not None
    middle = truth.shape[2] / 2
    halves = [[t.select((t.xyz[:, 0] < middle) == left) for t in (candidates, truth)] for left in (True, False)]
    picks = []
    for (found, _), (others, true) in zip(halves, reversed(halves), strict=True):
        scores = evaluate(others, true, others, list(np.unique(truth.label))) if len(true) else []
        picks.append(pick(found, None, {s.label: s.best_threshold for s in scores})[0])
    return Coordinates.concatenate(picks)


def _candidates(embeddings: np.ndarray, references: ReferenceSet, truth: Coordinates) -> Coordinates:
    location = LocationSettings(min_score=-1.0)
    peaks = suppressed(peaks_of(references.similarity(embeddings), location), references, _SPACING_A, location)
    return Coordinates.from_arrays(
        peaks.zyx[:, ::-1] * STRIDE,
        MODEL_VOXEL_SIZE_A,
        truth.tomogram,
        truth.shape,
        label=[references.names[t] for t in peaks.target],
        score=peaks.score,
        diameter_A=[references.targets[t].diameter_A for t in peaks.target],
    )


def _spread(ids: Sequence[str], library: DensityLibrary, count: int, rng: np.random.Generator) -> list[str]:
    """`count` of the molecules, drawn evenly over their masses, no two that look alike."""
    by_mass = sorted(ids, key=lambda i: library.entries[i].mass_kDa)
    chosen: list[str] = []
    for part in np.array_split(np.array(by_mass, dtype=object), min(count, len(by_mass))) if by_mass and count else []:
        apart = [i for i in rng.permutation(part) if not set(library.entries[i].lookalikes) & set(chosen)]
        chosen += apart[:1]
    return chosen
