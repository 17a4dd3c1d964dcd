"""Places -> verified picks: each place is matched with the targets' densities, and they compete on that.

    targets' densities, decoys (decoys.py)
    places      the best peaks of the embedding's similarity, and those of coarse matching (places.py)
    matches     at each place in all orientations (matcher.py): correlation, strength, centre
    scores      correlations of usual strength; each place goes to the target that explains it best (competition.py)
    rates       how probable each is, beside what the decoys' matches come to (rates.py)
    picks       the probable ones uphill to finer orientations and centres (subtomograms/orienting.py)

All of it knows the tomogram alone, whatever the network makes of it: raw, deconvolved or denoised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.progress import progress
from tomotwin_core.regions import Region
from tomotwin_core.side_by_side import side_by_side
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.structures.density import Density
from tomotwin_core.subtomograms.orienting import OrientingSettings, refine
from tomotwin_core.tomogram import TomogramSource
from tomotwin_core.verification import rates
from tomotwin_core.verification.competition import Matched, distinct, kept_beside, kept_in_competition, scores
from tomotwin_core.verification.decoys import Decoy, choose_decoys
from tomotwin_core.verification.matcher import Matcher, Prepared
from tomotwin_core.verification.places import (
    block,
    coarse_places,
    coarse_voxel_size_A,
    number_of_places,
    spread_places,
)

# Diameters up to which so many A a voxel are taken, and the angular step there: a particle is some twenty voxels wide at most.
_SIZES = ((160.0, 10.0, 20.0), (240.0, 12.5, 18.0), (np.inf, 15.0, 18.0))
# Places of one target nearer than this are one, A; those of chance; voxels of a coarse tomogram in which decoys are looked for.
_SAME_PLACE_A, PLACES_OF_CHANCE, _DECOYS_VOXELS = 15.0, 150, 1_500_000
# How far from a place its match may lie along each axis, A.
_REACH_A = 25.0
# Matches get finer orientations up to this expected share of false ones.
_WORTH_REFINING = 0.7


@dataclass(frozen=True)
class VerificationSettings:
    """low_pass_A : nothing finer of tomogram and templates is compared.  separation : least distance of two picks of one target, as
    a share of its diameter.  competition : whether a place goes to the target that explains it best, or to all that it fits.
    seed : of the choice of decoys and places of chance."""

    low_pass_A: float = 30.0
    separation: float = 0.6
    competition: bool = True
    seed: int = 1


class _Molecule(NamedTuple):
    """decoy : whether it is one.  proposed : the target whose peaks of similarity it is matched at.  averaged : whether that
    target's density is an average out of tomograms; then it is matched there alone, and similarity enters its scores."""

    name: str
    density: Density
    decoy: bool
    proposed: str
    averaged: bool


class _Found(NamedTuple):
    """Matches of one molecule, and their orientations (n, 3, 3)."""

    matched: Matched
    rotation: NDArray[np.float64]


def verify(
    source: TomogramSource,
    proposed: Coordinates,
    densities: Mapping[str, Density],
    acquisition: Acquisition,
    settings: VerificationSettings | None = None,
    contrast: Literal["dark", "bright"] = "dark",
    region: Region | None = None,
    device: str = "cpu",
    averaged_decoys: Mapping[str, Density] | None = None,
) -> Coordinates:
    """Verified picks of all targets in one tomogram, best first.

    Parameters
    ----------
    source : TomogramSource
    proposed : Coordinates
        Peaks of similarity, of the targets by label, without competition.
    densities : mapping of str to Density
        The targets.
    acquisition : Acquisition
        How the tomogram was taken and reconstructed; its noise plays no part.
    settings : VerificationSettings, optional
    contrast : "dark" or "bright"
        Of protein in the tomogram.
    region : Region, optional
        Places outside are not looked at.
    device : str
        Where torch computes.
    averaged_decoys : mapping of str to Density, optional
        Of targets whose densities are averages: averages of other places, which are their decoys in place of library molecules.

    Returns
    -------
    In the tomogram's voxels: score, the correlation, less where its strength is unusual; correlation; rotation; fdr, the share
    of false ones expected among those of the target that score at least as much.
    """
    settings = settings or VerificationSettings()
    own = {name: Decoy(density, name) for name, density in (averaged_decoys or {}).items() if name in densities}
    decoys = choose_decoys({n: d for n, d in densities.items() if n not in own}, settings.seed) | own
    tomograms = _Tomograms(source, contrast, settings.low_pass_A, device)
    averaged = {name: density.told_diameter_A is not None for name, density in densities.items()}
    molecules = [_Molecule(name, density, False, name, averaged[name]) for name, density in densities.items()]
    molecules += [_Molecule(n, d.density, True, d.target, averaged[d.target]) for n, d in decoys.items()]
    for molecule in molecules:  # before threads want them
        tomograms.of(matching_size(molecule.density.diameter_A)[0])
        tomograms.of(coarse_voxel_size_A(molecule.density.diameter_A))
    search = _Search(tomograms, acquisition, proposed, region, settings, device)
    alone = torch.device(device).type == "cpu"
    found = list(
        progress(
            (side_by_side if alone else map)(search.of, molecules),
            len(molecules),
            f"verifying {source.name}",
            "molecules",
        )
    )
    targets = {m.name: f for m, f in zip(molecules, found, strict=True) if not m.decoy}
    others = {f"decoy:{m.name}": f for m, f in zip(molecules, found, strict=True) if m.decoy}
    return _picked(search, densities, targets, others, contrast)


class _Tomograms:
    """The tomogram at several voxel sizes, each made once."""

    def __init__(
        self, source: TomogramSource, contrast: Literal["dark", "bright"], low_pass_A: float, device: str
    ) -> None:
        self.source = source
        self._arguments = contrast, low_pass_A, device
        self._kept: dict[float, Prepared] = {}

    def of(self, voxel_size_A: float) -> Prepared:
        if voxel_size_A not in self._kept:
            contrast, low_pass_A, device = self._arguments
            self._kept[voxel_size_A] = Prepared.of(
                self.source,
                contrast,
                voxel_size_A,
                max(low_pass_A, 2 * voxel_size_A, 2 * self.source.voxel_size_A),
                device,
            )
        return self._kept[voxel_size_A]


class _Search:
    """What is the same for all molecules."""

    def __init__(
        self, tomograms: _Tomograms, acquisition: Acquisition, proposed: Coordinates, region: Region | None,
        settings: VerificationSettings, device: str,
    ) -> None:  # fmt: skip
        self.tomograms, self.acquisition, self.proposed = tomograms, acquisition, proposed
        self.region, self.settings, self.device = region, settings, device
        self.source = tomograms.source
        self.count = number_of_places(self.source.shape, self.source.voxel_size_A)
        self.decoys_share = 1.0
        self.chance = spread_places(self.source, PLACES_OF_CHANCE, np.random.default_rng(settings.seed))
        if region is not None:
            inside = self._inside(self.chance)
            self.chance = self.chance[inside] if inside.sum() > 10 else self.chance

    def of(self, molecule: _Molecule) -> _Found:
        density = molecule.density
        size, step = matching_size(density.diameter_A)
        tomogram = self.tomograms.of(size)
        voxel_size_A = tomogram.voxel_size_A
        low_pass_A = max(self.settings.low_pass_A, 2 * voxel_size_A)
        matcher = Matcher.of(density, self.acquisition, voxel_size_A, low_pass_A, step, self.device)
        reach = max(round(_REACH_A / voxel_size_A), 1)
        matches = matcher.at(tomogram, self._places(molecule)[:, ::-1] / voxel_size_A, reach)
        deviation = matcher.deviation(tomogram, self.chance[:, ::-1] / voxel_size_A)
        xyz_A = matches.zyx[:, ::-1] * voxel_size_A
        # A match may lie outside where its place did not.
        kept = np.arange(len(xyz_A)) if self.region is None else np.flatnonzero(self._inside(xyz_A))
        matched = Matched(
            xyz_A[kept], matches.correlation[kept], matches.strength[kept], deviation, density.diameter_A,
            self.settings.separation * density.diameter_A, density.mass_kDa, size, self._similar(molecule, xyz_A[kept]),
        )  # fmt: skip
        return _Found(matched, matcher.rotations[matches.rotation[kept]])

    def _places(self, molecule: _Molecule) -> NDArray[np.float64]:
        """Places (n, 3) x, y, z in A of one molecule."""
        coarse = self.tomograms.of(coarse_voxel_size_A(molecule.density.diameter_A))
        own = self.proposed.select(self.proposed.label == molecule.proposed)
        best = own.select(np.argsort(-own.score, kind="stable")[: self.count])
        proposed = best.xyz * best.voxel_size_A
        begins, count = np.zeros(3), self.count
        if molecule.decoy:
            coarse, begins, share = block(coarse, _DECOYS_VOXELS)
            self.decoys_share = min(self.decoys_share, share)
            count = max(int(self.count * share), 1)
            ends = begins + np.array(coarse.volume.shape[::-1]) * coarse.voxel_size_A
            proposed = proposed[((proposed >= begins) & (proposed < ends)).all(1)]
        places = proposed
        if not molecule.averaged:
            found = coarse_places(coarse, molecule.density, self.acquisition, count) + begins
            places = np.concatenate([found, proposed])
        places = places[distinct(places, -np.arange(len(places), dtype=float), _SAME_PLACE_A)]
        if self.region is not None:
            places = places[self._inside(places)]
        return places

    def _similar(self, molecule: _Molecule, xyz_A: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Of averages: the similarity of the peak that each match came from, the nearest one."""
        if not molecule.averaged:
            return None
        own = self.proposed.select(self.proposed.label == molecule.proposed)
        if not len(own):
            return np.zeros(len(xyz_A))
        _, nearest = cKDTree(own.xyz * own.voxel_size_A).query(xyz_A)
        return np.asarray(own.score[nearest], np.float64)

    def _inside(self, xyz_A: NDArray[np.float64]) -> NDArray[np.bool_]:
        assert self.region is not None
        return self.region.contains(xyz_A / self.source.voxel_size_A)


def matching_size(diameter_A: float) -> tuple[float, float]:
    """Voxel size (A) and angular step (degrees) at which a molecule of this diameter is matched."""
    return next((size, step) for limit, size, step in _SIZES if diameter_A <= limit)


def _picked(
    search: _Search, densities: Mapping[str, Density], targets: Mapping[str, _Found], decoys: Mapping[str, _Found],
    contrast: Literal["dark", "bright"],
) -> Coordinates:  # fmt: skip
    """Competition, rates, and finer orientations of what is probable."""
    source, settings = search.source, search.settings
    matched = {name: found.matched for name, found in targets.items()}
    others = {name: found.matched for name, found in decoys.items()}
    score = scores(matched, others)
    won = kept_in_competition(matched, score)
    if not settings.competition:
        won = {name: distinct(one.xyz_A, score[name], one.apart_A) for name, one in matched.items()}
    beside = {
        name: rates.comparable(score[name][kept_beside(one, score[name], matched, won, score)], one.deviation)
        for name, one in others.items()
    }
    orienting = OrientingSettings(low_pass_A=settings.low_pass_A, contrast=contrast)
    tables = []
    for name, one in matched.items():
        kept = won[name]
        x = rates.comparable(score[name][kept], one.deviation)
        compared = [(beside[n], o.deviation, o.mass_kDa / one.mass_kDa) for n, o in others.items()]
        fdr = rates.false_discovery(x, one.deviation, compared, search.decoys_share)
        table = Coordinates.from_arrays(
            one.xyz_A[kept] / source.voxel_size_A, source.voxel_size_A, source.name, source.shape, name, score[name][kept],
            densities[name].diameter_A, targets[name].rotation[kept], fdr, correlation=one.correlation[kept],
        )  # fmt: skip
        tables.append(_refined(search, table, fdr < _WORTH_REFINING, densities[name], orienting))
    everything = Coordinates.concatenate(tables)
    return everything.select(np.argsort(-everything.score, kind="stable"))


def _refined(
    search: _Search, table: Coordinates, which: NDArray[np.bool_], density: Density, settings: OrientingSettings
) -> Coordinates:
    """The table with finer centres and orientations of some of its rows."""
    if not which.any():
        return table
    finer = refine(search.source, table.select(which), density, search.acquisition, settings, search.device)
    last = np.array(search.source.shape[::-1]) - 1
    found = np.clip(finer.xyz, 0, last)
    # Centres stay where they were where they would leave the region.
    stay = np.zeros(len(found), bool) if search.region is None else ~search.region.contains(found)
    found[stay] = table.xyz[which][stay]
    xyz, rotation, correlation = table.xyz.copy(), np.array(table.rotation), np.array(table.correlation)
    xyz[which], rotation[which], correlation[which] = found, finer.rotation, finer.correlation
    return replace(table, xyz=xyz, rotation=rotation, correlation=correlation)
