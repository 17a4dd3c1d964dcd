"""A stream of simulated mini-tomograms that are never the same twice.

Each item is a pair of mini-tomograms with the same species, in two different random samples taken, reconstructed and
delivered in two different random ways: so a step sees every species in many orientations, neighbourhoods, defoci and
doses, and learns that these do not matter. Half of a pair's species are drawn at random, the other half around one
mass, so that every batch holds hard negatives. A share of them is invented (inventing.py), new ones all the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch.utils.data import Dataset

from tomotwin_core.simulation.building import SampleSettings, build_sample
from tomotwin_core.simulation.delivery import deliver
from tomotwin_core.simulation.microscope import take_tilt_series
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.randomise import random_experiment, usual_experiment
from tomotwin_core.simulation.reconstruction import reconstruct
from tomotwin_core.simulation.sample import Sample, even_copies
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, normalise_local
from tomotwin_core.training.inventing import Invented, invent

FURNITURE = -1
# Labels of a pair's invented molecules: of no species, above any number of them, and in that pair only.
INVENTED = 1 << 20
# So many invented molecules are at hand, each for about so many pairs: turned copies of a new one cost as much as a tilt series.
_AT_HAND, _SERVES = 40, 4
# Places on membranes, filaments and carbon that a mini-tomogram lists, at most, and how far from particles' centres.
_FURNITURE_PLACES, _APART_VOX = 40, 6.0


def label_in_world(label: torch.Tensor, rank: int) -> torch.Tensor:
    """Labels (n,) with those of invented molecules told apart from other processes', who invent their own."""
    return torch.where(label >= INVENTED, label + rank * _AT_HAND, label)


@dataclass(frozen=True)
class MiniTomogram:
    """volume float32 [z, y, x], normalised, protein bright; xyz (n, 3) voxels; label (n,) index of the species, FURNITURE
    for gold beads and for places on membranes, filaments and carbon; diameter_A (n,), 0 where there is none; usual: whether
    its statistics are what the network keeps for later, as those of the ones taken as most are (all, where none is)."""

    volume: NDArray[np.float32]
    xyz: NDArray[np.float64]
    label: NDArray[np.intp]
    diameter_A: NDArray[np.float64]
    usual: bool = True


@dataclass(frozen=True)
class StreamSettings:
    """shape [z, y, x] in voxels of 10 A; species per pair; copies of one species in one mini-tomogram; share of the
    ice that is occupied; turned copies of each molecule that are kept; share of a pair's species that are invented, made
    out of those there are; share of the mini-tomograms that are taken as most are, all others with everything drawn from
    wide distributions; seed."""

    shape: tuple[int, int, int] = (52, 136, 136)
    species: int = 28
    max_copies: int = 24
    occupied: tuple[float, float] = (0.12, 0.38)
    variants: int = 24
    invented: float = 0.5
    usual: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class _Member:
    """A species of a pair."""

    label: int
    mass_kDa: float
    diameter_A: float


class MiniTomogramStream(Dataset[tuple[MiniTomogram, MiniTomogram]]):
    """Endless pairs by number. What a pair is depends on the settings (their seed) and its number alone, not on the pairs before it:
    so a run that was broken off goes on with those that it would have seen.

    lanes : of every so many pairs in a row each one has invented molecules and turned copies of its own; as many as there are
    processes, so that each of them makes these for itself and none twice.
    """

    def __init__(
        self, library: DensityLibrary, species: list[str], settings: StreamSettings, device: str = "cpu", lanes: int = 1
    ) -> None:
        self.library, self.species, self.settings, self.device, self.lanes = library, species, settings, device, lanes
        self._mass = np.array([library.entries[i].mass_kDa for i in species])
        # By lane: which of its series is at hand, and what was needed of it so far, by number.
        self._at_hand: dict[int, tuple[int, dict[int, Invented | None]]] = {}

    def __iter__(self) -> Iterator[tuple[MiniTomogram, MiniTomogram]]:
        return (self[number] for number in count())

    def __getitem__(self, number: int) -> tuple[MiniTomogram, MiniTomogram]:
        rng = np.random.default_rng((self.settings.seed, 0, number))
        lane, turn = number % self.lanes, number // self.lanes
        self._molecules.series = lane
        cast = self._cast(rng, self._molecules, lane, turn)
        return self._mini(cast, self._molecules, rng), self._mini(cast, self._molecules, rng)

    @cached_property
    def _molecules(self) -> Molecules:
        densities = {i: self.library.density(i) for i in self.species}
        return Molecules(densities, MODEL_VOXEL_SIZE_A, self.settings.variants, self.settings.seed)

    @property
    def _invented(self) -> int:
        """Of a pair's species."""
        return round(self.settings.invented * self.settings.species)

    @property
    def _together(self) -> int:
        """Pairs of a lane that share the invented molecules at hand."""
        return max(_AT_HAND * _SERVES // max(self._invented, 1), 1)

    def draw_species(self, rng: np.random.Generator) -> list[int]:
        """Indices of one pair's species of the library; of molecules that look the same at this resolution only one."""
        count = self.settings.species
        count = max(count - round(self.settings.invented * count), 2)
        order = list(rng.permutation(len(self.species)))
        anchor = self._mass[order[0]]
        near = sorted(order, key=lambda i: abs(np.log(self._mass[i] / anchor)) + 0.3 * rng.random())
        chosen: list[int] = []
        for candidate in [c for pair in zip(near, order, strict=True) for c in pair]:
            lookalikes = self.library.entries[self.species[candidate]].lookalikes
            if candidate not in chosen and not any(self.species[c] in lookalikes for c in chosen):
                chosen.append(candidate)
            if len(chosen) == count:
                break
        return chosen

    def _cast(self, rng: np.random.Generator, molecules: Molecules, lane: int, turn: int) -> dict[str, _Member]:
        """One pair's species by name: some of the library and some of a series of invented ones, none made of a molecule that is
        there itself, or looks like one, or that another is made of."""
        chosen = self.draw_species(rng)
        entries = [self.library.entries[self.species[i]] for i in chosen]
        cast = {e.id: _Member(i, e.mass_kDa, e.diameter_A) for i, e in zip(chosen, entries, strict=True)}
        taken = {e.id for e in entries}.union(*(e.lookalikes for e in entries))
        series, place = divmod(turn, self._together)
        for number in self._in_turn(lane, series, place * self._invented):
            if len(cast) >= self.settings.species:
                break
            made = self._made(molecules, lane, series, int(number))
            if made is not None and taken.isdisjoint(made.parents):
                cast[made.name] = _Member(INVENTED + int(number), made.density.mass_kDa, made.density.diameter_A)
                taken.update(made.parents)
        return cast

    def _in_turn(self, lane: int, series: int, served: int) -> NDArray[np.intp]:
        """Numbers of a series' invented molecules, those first whose turn it is when so many have served: all do about equally often,
        each time in other company."""
        cycle, start = divmod(served, _AT_HAND)
        rng = np.random.default_rng((self.settings.seed, 2, lane, series, cycle))
        return np.roll(rng.permutation(_AT_HAND), -start)

    def _made(self, molecules: Molecules, lane: int, series: int, number: int) -> Invented | None:
        """An invented molecule of a series, made when it is first asked for; the series before goes."""
        if self._at_hand.get(lane, (None, {}))[0] != series:
            for old in self._at_hand.pop(lane, (series, {}))[1].values():
                if old is not None:
                    molecules.forget(old.name)
            self._at_hand[lane] = series, {}
        known = self._at_hand[lane][1]
        if number not in known:
            own = np.random.default_rng((self.settings.seed, 1, lane, series, number))
            made = invent(f"invented {lane}.{series}.{number}", self.species, molecules.densities.__getitem__, own)
            if made is not None:
                molecules.add(made.name, made.density)
            known[number] = made
        return known[number]

    def _mini(self, cast: dict[str, _Member], molecules: Molecules, rng: np.random.Generator) -> MiniTomogram:
        shape = self.settings.shape
        asked = SampleSettings(shape, MODEL_VOXEL_SIZE_A, shape[0] * MODEL_VOXEL_SIZE_A)
        usual = rng.random() < self.settings.usual
        draw = usual_experiment if usual else random_experiment
        drawn, acquisition, delivery = draw(rng, asked)
        ice = min(drawn.thickness_A / MODEL_VOXEL_SIZE_A, shape[0]) * shape[1] * shape[2]
        masses = {name: member.mass_kDa for name, member in cast.items()}
        copies = even_copies(masses, rng.uniform(*self.settings.occupied) * ice, 2, self.settings.max_copies)
        # Copies decide how crowded it is, for all species alike: a limit would leave out the small ones.
        drawn = replace(drawn, copies=copies, occupied=0.6)
        sample = build_sample(drawn, molecules, rng)
        generator = torch.Generator(device=self.device).manual_seed(int(rng.integers(2**62)))
        volume = torch.from_numpy(sample.volume).to(self.device)
        series = take_tilt_series(volume, MODEL_VOXEL_SIZE_A, acquisition, generator, ice=sample.ice)
        delivered, _ = deliver(
            reconstruct(series, acquisition).cpu().numpy(), MODEL_VOXEL_SIZE_A, delivery, acquisition
        )
        xyz, label, diameter = _truth(sample, cast, rng)
        normalised = normalise_local(-_as_shape(delivered.astype(np.float32), shape))
        return MiniTomogram(normalised, xyz, label, diameter, usual or not self.settings.usual)


def _truth(
    sample: Sample, cast: dict[str, _Member], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64]]:
    """Positions, labels and diameters of particles and furniture."""
    members = [cast.get(n, _Member(FURNITURE, 0.0, 100.0)) for n in sample.names]
    xyz = np.array(sample.positions, float).reshape(-1, 3)
    furniture = _furniture_places(sample, xyz, rng)
    return (
        np.concatenate([xyz, furniture]),
        np.array([m.label for m in members] + [FURNITURE] * len(furniture), np.intp),
        np.array([m.diameter_A for m in members] + [0.0] * len(furniture)),
    )


def _furniture_places(sample: Sample, centres: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Voxels (n, 3) x, y, z in the bodies of what is no particle, away from the centres of particles."""
    particles = np.zeros(len(sample.structures) + 1, bool)
    particles[[0, *sample.particle_labels]] = True
    flat = np.flatnonzero(~particles[sample.labels])
    if not len(flat):
        return np.zeros((0, 3))
    z, y, x = np.unravel_index(rng.choice(flat, _FURNITURE_PLACES), sample.labels.shape)
    places = np.stack([x, y, z], axis=1).astype(float)
    if len(centres):
        places = places[cKDTree(centres).query(places)[0] > _APART_VOX]
    return places


def _as_shape(volume: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """A volume that lost planes at its far faces on the way to coarser voxels and back, at its shape again."""
    missing = [(0, n - m) for n, m in zip(shape, volume.shape, strict=True)]
    return np.pad(volume, missing, mode="edge") if any(m for _, m in missing) else volume
