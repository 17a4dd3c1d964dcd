"""F1 per species on simulated tomograms, through the whole path: references from structures, thresholds from
simulation, competition on.

Molecules are dealt into groups; each group is simulated in a tomogram of its own (10 A voxels, 61 tilts, the
acquisition of the options, a seed that neither training nor the references use). `heldout` takes every molecule whose
family the released model never saw, `trained` as many of the training set, drawn evenly over their masses.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from tomotwin_core.embedding import DenseEmbedder, pick_device
from tomotwin_core.evaluation import SpeciesScore, evaluate, format_table, median_f1, write_csv
from tomotwin_core.model import STRIDE, Model, load_model
from tomotwin_core.picking import LocationSettings, ReferenceSettings, pick, references_from_densities
from tomotwin_core.picking.location import coordinates_of, peaks_of, suppressed
from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.experiment import simulate_tomogram
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.structures.library import DensityLibrary, load_library
from tomotwin_core.tomogram import normalise_local

SPACING_A = STRIDE * 10.0


class InMemoryField:
    """What `coordinates_of` asks of an embedding field, for a tomogram that is not on disk."""

    def __init__(self, name: str, shape: tuple[int, int, int]) -> None:
        self.tomogram, self.tomogram_shape, self.voxel_size_A, self.spacing_A = name, shape, 10.0, SPACING_A


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", choices=("heldout", "trained"), default="heldout")
    parser.add_argument("--model", default="released")
    parser.add_argument("--per-tomogram", type=int, default=12, help="species in one tomogram (default: 12)")
    parser.add_argument("--copies", type=int, default=22)
    parser.add_argument("--shape", type=int, nargs=3, default=(100, 220, 220))
    parser.add_argument("--dose", type=float, default=150.0)
    parser.add_argument("--limit", type=int, default=0, help="only so many groups; 0 for all")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--out", type=Path, help="write the table as CSV and the medians as JSON")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    library, model, device = load_library(), load_model(options.model), str(pick_device(options.device))
    rng = np.random.default_rng(options.seed)
    ids = species_of(library, options.group, rng)
    groups = [list(g) for g in np.array_split(rng.permutation(ids), -(-len(ids) // options.per_tomogram))]
    scores: list[SpeciesScore] = []
    for index, group in enumerate(groups[: options.limit or None]):
        scores += one_tomogram(library, [str(g) for g in group], model, options, index, device)
    print(f"{options.group}, seed {options.seed}, model {model.hash}, {options.dose:g} e/A^2")
    print(format_table(scores))
    figures = medians(library, scores)
    for name, value in figures.items():
        print(f"{name}: {value:.2f}")
    command = f"python benchmarks/accuracy.py --group {options.group} --seed {options.seed} --dose {options.dose:g}"
    rounded = {name: round(value, 3) for name, value in figures.items()}
    measured = {"model": model.hash, "command": command, "species": len(scores), **rounded}
    if options.out:
        write_csv(options.out, scores)
        options.out.with_suffix(".json").write_text(json.dumps(measured, indent=1) + "\n")


def species_of(library: DensityLibrary, group: str, rng: np.random.Generator) -> list[str]:
    heldout = library.ids("heldout")
    if group == "heldout":
        return heldout
    by_mass = sorted(library.ids("train"), key=lambda i: library.entries[i].mass_kDa)
    return [str(rng.choice(part)) for part in np.array_split(by_mass, len(heldout) + 1)]


def one_tomogram(
    library: DensityLibrary, group: list[str], model: Model, options: argparse.Namespace, index: int, device: str
) -> list[SpeciesScore]:
    densities = {i: library.density(i) for i in group}
    acquisition = Acquisition(dose_e_per_A2=options.dose)
    rng = np.random.default_rng((options.seed, index))
    shape = tuple(options.shape)
    settings = SampleSettings(shape, 10.0, 0.85 * shape[0] * 10, options.copies)
    taken = Acquisition(dose_e_per_A2=options.dose, defocus_um=float(rng.uniform(2, 5)))
    tomogram = simulate_tomogram(Molecules(densities, 10.0), settings, taken, rng, f"tomo_{index}", device)
    references = references_from_densities(
        densities, model, acquisition, ReferenceSettings(seed=options.seed + 1000, defocus_um=(2.0, 5.0)), device
    )
    embeddings, _ = DenseEmbedder(model.network, device).whole(normalise_local(-tomogram.volume))
    location = LocationSettings(min_score=-1.0)
    peaks = suppressed(peaks_of(references.similarity(embeddings), location), references, SPACING_A, location)
    candidates = coordinates_of(peaks, references, InMemoryField(f"tomo_{index}", shape))
    picks, _ = pick(candidates, None, {t.name: t.threshold for t in references.targets})
    return evaluate(picks, tomogram.truth, candidates)


def medians(library: DensityLibrary, scores: list[SpeciesScore]) -> dict[str, float]:
    figures = {"median F1": median_f1(scores), "median best possible F1": median_f1(scores, best=True)}
    for name, low, high in (("below 150 kDa", 0, 150), ("150 to 500 kDa", 150, 500), ("above 500 kDa", 500, 1e9)):
        chosen = [s for s in scores if low <= library.entries[s.label].mass_kDa < high]
        if chosen:
            figures[f"median F1 {name} ({len(chosen)})"] = median_f1(chosen)
    return figures


if __name__ == "__main__":
    main()
