"""A stream of simulated mini-tomograms that are never the same twice.

Each item is a pair of mini-tomograms with the same species, taken under two different random acquisitions: so a step
sees every species in many orientations, neighbourhoods, defoci and doses, and learns that these do not matter. Half
of a pair's species are drawn at random, the other half around one mass, so that every batch holds hard negatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch.utils.data import IterableDataset

from tomotwin_core.simulation.acquisition import random_acquisition
from tomotwin_core.simulation.furniture import add_gold
from tomotwin_core.simulation.membranes import add_vesicle
from tomotwin_core.simulation.microscope import reconstruct, take_tilt_series
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.sample import Sample, even_copies, fill
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, normalise_local


@dataclass(frozen=True)
class MiniTomogram:
    """volume float32 [z, y, x], normalised, protein bright; xyz (n, 3) voxels; label (n,) index of the species, -1
    for gold; diameter_A (n,)."""

    volume: np.ndarray
    xyz: np.ndarray
    label: np.ndarray
    diameter_A: np.ndarray


@dataclass(frozen=True)
class StreamSettings:
    """shape [z, y, x] in voxels of 10 A; species per pair; copies of one species in one mini-tomogram; share of the
    slab that is occupied."""

    shape: tuple[int, int, int] = (52, 136, 136)
    species: int = 28
    max_copies: int = 24
    occupied: tuple[float, float] = (0.12, 0.38)
    variants: int = 24
    seed: int = 0


class MiniTomogramStream(IterableDataset[tuple[MiniTomogram, MiniTomogram]]):
    """Endless pairs; workers and runs differ by seed, the same seed gives the same stream."""

    def __init__(self, library: DensityLibrary, species: list[str], settings: StreamSettings) -> None:
        self.library, self.species, self.settings = library, species, settings
        self._mass = np.array([library.entries[i].mass_kDa for i in species])
        self._diameter = np.array([library.entries[i].diameter_A for i in species])

    def __iter__(self) -> Iterator[tuple[MiniTomogram, MiniTomogram]]:
        worker = torch.utils.data.get_worker_info()
        if worker:  # one core each; without workers this is the process that trains
            torch.set_num_threads(1)
        rng = np.random.default_rng((self.settings.seed, worker.id if worker else 0))
        molecules = Molecules(
            {i: self.library.density(i) for i in self.species}, MODEL_VOXEL_SIZE_A, self.settings.variants
        )
        while True:
            chosen = self.draw_species(rng)
            yield self._mini(chosen, molecules, rng), self._mini(chosen, molecules, rng)

    def draw_species(self, rng: np.random.Generator) -> list[int]:
        """Indices of one pair's species; of molecules that look the same at this resolution only one."""
        order = list(rng.permutation(len(self.species)))
        anchor = self._mass[order[0]]
        near = sorted(order, key=lambda i: abs(np.log(self._mass[i] / anchor)) + 0.3 * rng.random())
        chosen: list[int] = []
        for candidate in [c for pair in zip(near, order, strict=True) for c in pair]:
            lookalikes = self.library.entries[self.species[candidate]].lookalikes
            if candidate not in chosen and not any(self.species[c] in lookalikes for c in chosen):
                chosen.append(candidate)
            if len(chosen) == self.settings.species:
                break
        return chosen

    def _mini(self, chosen: list[int], molecules: Molecules, rng: np.random.Generator) -> MiniTomogram:
        s = self.settings
        thickness = int(rng.integers(int(0.7 * s.shape[0]), s.shape[0] + 1))
        sample = Sample.empty(s.shape, MODEL_VOXEL_SIZE_A, thickness)
        if rng.random() < 0.4:
            add_vesicle(sample, rng)
        for _ in range(int(rng.integers(0, 6)) if rng.random() < 0.5 else 0):
            add_gold(sample, rng)
        occupied = rng.uniform(*s.occupied)
        masses = {self.species[i]: float(self._mass[i]) for i in chosen}
        copies = even_copies(masses, occupied * thickness * s.shape[1] * s.shape[2], 2, s.max_copies)
        fill(sample, molecules, copies, rng, occupied=1.5 * occupied)
        acquisition = random_acquisition(rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        series = take_tilt_series(torch.from_numpy(sample.volume), MODEL_VOXEL_SIZE_A, acquisition, generator)
        bright = -reconstruct(series, acquisition).numpy()
        if rng.random() < 0.5:  # users filter and bin: half the tomograms lack their highest frequencies
            bright = ndimage.gaussian_filter(bright, rng.uniform(0.3, 1.1))
        index = {name: i for i, name in enumerate(self.species)}
        label = np.array([index.get(n, -1) for n in sample.names], int)
        diameter = np.where(label >= 0, self._diameter[label], 100.0)
        return MiniTomogram(normalise_local(bright), np.array(sample.positions).reshape(-1, 3), label, diameter)
