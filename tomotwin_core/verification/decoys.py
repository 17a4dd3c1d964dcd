"""Decoys: molecules of the library that are not in the sample, matched as the targets are.

Whatever a wrong match of a target comes to in this very tomogram, with its noise, its other molecules, its gold and its
membranes, a molecule of about the same size that is not there comes to as well (target and decoy: Elias and Gygi, Nature
Methods 4, 207, 2007). Mirror images and scrambled phases were not tried: at 30 A many molecules look like their mirror
images, and what a wrong match looks like is another molecule rather than noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomotwin_core.structures.density import Density
from tomotwin_core.structures.library import LibraryEntry, load_library

# Of the library's molecules the nearest in size, of which the decoys are drawn.
_NEAREST = 8
# Two molecules may be one where mass, extent and the lengths of their main axes are all as near as this (shares).
_SAME_MASS, _SAME_SHAPE = 0.12, 0.05
# More decoys for few targets: of six the spread of wrong scores is told, all targets look at all decoys of about their size.
_FEWEST, _LEAST_EACH = 8, 2


class Decoy(NamedTuple):
    """A molecule that is not there, and the target in whose stead it is matched."""

    density: Density
    target: str


def choose_decoys(targets: Mapping[str, Density], seed: int = 1) -> dict[str, Decoy]:
    """Decoys by library id for targets by name: of each target's mass and diameter, none that may be a target."""
    library = load_library()
    rng = np.random.default_rng(seed)
    each = max(_LEAST_EACH, -(-_FEWEST // max(len(targets), 1)))
    shapes = {name: _shape(density) for name, density in targets.items()}
    chosen: dict[str, Decoy] = {}
    for name, density in targets.items():
        near = sorted(library.ids("train"), key=lambda i: _distance(library.entries[i], density))
        fit: list[str] = []
        for id in near:
            if len(fit) == max(_NEAREST, each):
                break
            if not _may_be_one(library.density(id), library.entries[id], targets, shapes):
                fit.append(id)
        for id in rng.permutation(fit)[:each]:
            chosen.setdefault(str(id), Decoy(library.density(str(id)), name))
    return chosen


def _distance(entry: LibraryEntry, density: Density) -> float:
    mass, diameter = entry.mass_kDa / density.mass_kDa, entry.diameter_A / density.diameter_A
    return float(abs(np.log(mass)) + abs(np.log(diameter)))


def _may_be_one(
    density: Density, entry: LibraryEntry, targets: Mapping[str, Density], shapes: Mapping[str, NDArray[np.float64]]
) -> bool:
    own: NDArray[np.float64] | None = None
    for name, target in targets.items():
        if abs(np.log(entry.mass_kDa / target.mass_kDa)) > _SAME_MASS:
            continue
        own = _shape(density) if own is None else own
        if np.abs(np.log(own / shapes[name])).max() < _SAME_SHAPE:
            return True
    return False


def _shape(density: Density) -> NDArray[np.float64]:
    """Standard deviations of the mass along its main axes, rising, A (3,): the same for a molecule however it is turned."""
    values = density.values.astype(np.float64)
    places = np.argwhere(values > 0)
    weight = values[tuple(places.T)]
    xyz = (places - np.average(places, axis=0, weights=weight)) * density.voxel_size_A
    return np.asarray(np.sqrt(np.linalg.eigvalsh((xyz * weight[:, None]).T @ xyz / weight.sum()).clip(1e-6)))
