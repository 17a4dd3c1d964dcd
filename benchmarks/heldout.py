"""What the benchmarks of picking share: small simulated tomograms of species that no training saw, embedded once.

Held-out species are dealt by a seed into groups of ten; each group makes one tomogram (10 A voxels, a slab of ice of three
quarters of its height, a vesicle and gold beads in all but the first). Tomograms, truths and embeddings lie in a folder
and are made only where they are missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.embedding import EmbeddingField, embed_to_disk
from tomotwin_core.evaluation import tolerance_A
from tomotwin_core.evaluation.matching import rightness_in_order
from tomotwin_core.files import atomic_path, fingerprint
from tomotwin_core.model import Model, load_model
from tomotwin_core.picking.simulated import ReferenceSettings, Seen, simulated_world
from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.experiment import SimulatedTomogram, simulate_tomogram
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.sample import Crowding
from tomotwin_core.structures.density import Density
from tomotwin_core.structures.library import load_library
from tomotwin_core.tomogram import open_tomogram, write_mrc

VOXEL_A = 10.0
PER_TOMOGRAM = 10
DEFOCUS_UM = (2.5, 5.0)


@dataclass(frozen=True)
class HeldOut:
    """One tomogram: its embedding, its truth, its species with their densities."""

    field: EmbeddingField
    truth: Coordinates
    densities: dict[str, Density]

    def of(self, name: str) -> np.ndarray:
        """True positions (n, 3) of a species."""
        return self.truth.xyz[self.truth.label == name]

    def tolerance(self, name: str) -> float:
        """In voxels."""
        return tolerance_A(self.densities[name].diameter_A) / VOXEL_A

    def judged(
        self, peaks: Coordinates, name: str, without: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Scores of a species' peaks, best first, which are right, and how many there are; `without`: positions that
        count neither way."""
        own = peaks.select(peaks.label == name)
        own = own.select(np.argsort(-own.score, kind="stable"))
        true = self.of(name)
        if without is not None and len(without):
            true = true[distance_to(true, without) > 1e-3]
            own = own.select(distance_to(own.xyz, without) > self.tolerance(name))
        return own.score, rightness_in_order(own.xyz, true, self.tolerance(name)), len(true)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder for tomograms and embeddings")
    parser.add_argument("--model", default="released")
    parser.add_argument("--tomograms", type=int, default=3)
    parser.add_argument("--shape", type=int, nargs=3, default=(80, 200, 200), metavar=("Z", "Y", "X"))
    parser.add_argument("--copies", type=int, default=22)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--device", default="cpu")


def held_out(options: argparse.Namespace) -> Iterator[HeldOut]:
    """The tomograms, made where they are missing."""
    library, model = load_library(), load_model(options.model)
    order = np.random.default_rng(options.seed).permutation(library.ids("heldout"))
    for index in range(options.tomograms):
        group = [str(i) for i in order[index * PER_TOMOGRAM : (index + 1) * PER_TOMOGRAM]]
        densities = {i: library.density(i) for i in group}
        name = f"heldout_{options.seed}_{index}_" + "x".join(map(str, options.shape))
        path, truth = options.work / f"{name}.mrc", options.work / f"{name}_truth.star"
        if not truth.is_file():
            rng = np.random.default_rng((options.seed, index))
            shape = tuple(options.shape)
            sample = SampleSettings(
                shape,
                VOXEL_A,
                0.75 * shape[0] * VOXEL_A,
                options.copies,
                vesicles=int(index > 0),
                gold=3 * int(index > 0),
            )
            taken = Acquisition(defocus_um=float(rng.uniform(*DEFOCUS_UM)))
            made = simulate_tomogram(Molecules(densities, VOXEL_A), sample, taken, rng, name, options.device)
            write_mrc(path, made.volume, VOXEL_A)
            write_coordinates(truth, made.truth)
        field = embed_to_disk(
            open_tomogram(path), model, options.work / f"{name}_{model.hash}.zarr", device=options.device
        )
        yield HeldOut(field, read_coordinates(truth), densities)


def world(
    options: argparse.Namespace, densities: dict[str, Density], crowd: int = 10
) -> tuple[Model, ReferenceSettings, list[Seen]]:
    """Simulated tomograms as `tomotwin reference` makes them, of a seed that no benchmark tomogram has; kept in the folder
    as the network saw them, for the next benchmark."""
    model = load_model(options.model)
    settings = ReferenceSettings(seed=options.seed + 1000, defocus_um=DEFOCUS_UM, crowd=crowd)
    made_of = fingerprint(settings=asdict(settings), acquisition=asdict(Acquisition()), species=sorted(densities))
    path = options.work / f"world_{made_of}_{model.hash}.npz"
    if not path.is_file():
        keep(path, simulated_world(densities, model, Acquisition(), settings, options.device))
    return model, settings, kept(path)


def keep(path: Path, seen: list[Seen]) -> None:
    """All but the voxels, which references do not need."""
    arrays: dict[str, np.ndarray] = {}
    for i, s in enumerate(seen):
        truth = s.tomogram.truth
        arrays |= {f"{i}.field": s.field.astype(np.float16), f"{i}.at_truth": s.at_truth, f"{i}.label": s.label,
                   f"{i}.background": s.background, f"{i}.xyz": truth.xyz, f"{i}.diameter": truth.diameter_A}  # fmt: skip
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def kept(path: Path) -> list[Seen]:
    """What `keep` kept."""
    seen = []
    with np.load(path, allow_pickle=False) as arrays:
        for i in range(sum(name.endswith(".field") for name in arrays)):
            own = {
                name: arrays[f"{i}.{name}"] for name in ("field", "at_truth", "label", "background", "xyz", "diameter")
            }
            truth = Coordinates.from_arrays(
                own["xyz"], VOXEL_A, f"reference_{i}", label=own["label"], diameter_A=own["diameter"]
            )
            tomogram = SimulatedTomogram(np.empty(0), truth, Crowding(float("nan"), float("nan"), np.empty(0)))
            field = own["field"].astype(np.float32)
            seen.append(Seen(tomogram, field, own["at_truth"], own["label"], own["background"]))
    return seen


def f1_at(scores: np.ndarray, right: np.ndarray, n_true: int, threshold: float) -> float:
    """F1 of the peaks that score at least the threshold."""
    kept = scores >= threshold
    return 2 * float(right[kept].sum()) / max(int(kept.sum()) + n_true, 1)


def best_f1(right: np.ndarray, n_true: int) -> float:
    """The highest F1 of any threshold; peaks best first."""
    if not len(right):
        return 0.0
    return float((2 * np.cumsum(right) / (np.arange(1, len(right) + 1) + n_true)).max())


def distance_to(positions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each position to the nearest of the others."""
    return np.linalg.norm(positions[:, None] - others[None], axis=-1).min(1, initial=np.inf)
