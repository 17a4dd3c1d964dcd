"""The subunits that filaments are built of, turned into their place in the filament.

A subunit's frame: z runs along the filament towards its plus (barbed) end, x from the axis outwards through the subunit's
centre of mass, which is the middle of its density. `simulation.filaments` repeats it by the helical parameters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotwin_core.structures.atoms import AlphaCarbons, read_alpha_carbons, read_atoms
from tomotwin_core.structures.density import Density, density_from_points
from tomotwin_core.structures.library import DensityLibrary

# An F-actin piece along z through the origin, its pointed end up (after 2ZWH, Oda et al. 2009).
_ACTIN_FILE = "2zwh_filament13.cif.gz"
# Tubulin: two heterodimers head to tail, alpha beta alpha beta towards the plus end (1FFX, Gigant et al. 2000).
_TUBULIN_FILE = "1ffx.cif.gz"
TUBULIN_DIMER_A = 82.0
# Helices H11 and H12 form the outer ridge of a protofilament (Nogales et al. 1999).
_OUTER_RIDGE = (384, 434)


def add_subunits(library: DensityLibrary, folder: Path, voxel_size_A: float) -> None:
    """Add `subunit_actin` and `subunit_tubulin` where the folder holds the structures they are made of."""
    for entry_id, name, file, make in (
        ("subunit_actin", "actin in a filament", _ACTIN_FILE, _actin),
        ("subunit_tubulin", "straight tubulin dimer in a microtubule", _TUBULIN_FILE, _tubulin),
    ):
        if (folder / file).is_file():
            library.add(
                entry_id,
                make(folder / file, voxel_size_A),
                name=name,
                source=f"made of {file.removesuffix('.cif.gz')} of this library",
                licence=library.entries[file.removesuffix(".cif.gz")].licence,
                kind="subunit",
                split="filament",
            )


def _actin(path: Path, voxel_size_A: float) -> Density:
    points = read_atoms(path, chain="A")
    upside_down = np.diag([1.0, -1.0, -1.0])
    xyz = points.xyz_A @ upside_down.T
    centre = points.centre_A @ upside_down.T
    outwards = Rotation.from_euler("z", -np.arctan2(centre[1], centre[0]))
    return density_from_points(outwards.apply(xyz), points.mass_Da, voxel_size_A)


def _tubulin(path: Path, voxel_size_A: float) -> Density:
    """A straight dimer: the crystal's protofilament is curved, so beta's own frame is taken, z along the protofilament at
    its place and x through its outer ridge, and alpha laid onto beta and moved down by one monomer."""
    chains = {c.chain: c for c in read_alpha_carbons(path)}
    alpha, beta, next_alpha = (chains[c].xyz_A.mean(0) for c in "ABC")
    along = _unit(_unit(beta - alpha) + _unit(next_alpha - beta))
    ridge = (chains["B"].numbers >= _OUTER_RIDGE[0]) & (chains["B"].numbers <= _OUTER_RIDGE[1])
    outwards = chains["B"].xyz_A[ridge].mean(0) - beta
    outwards = _unit(outwards - (outwards @ along) * along)
    frame = np.stack([outwards, np.cross(along, outwards), along])
    points = {c: read_atoms(path, chain=c) for c in "AB"}
    like_beta = _onto(chains["A"], chains["B"], points["A"].xyz_A)
    one_down = np.array([0.0, 0.0, TUBULIN_DIMER_A / 2])
    xyz = np.concatenate([(like_beta - beta) @ frame.T - one_down, (points["B"].xyz_A - beta) @ frame.T])
    return density_from_points(xyz, np.concatenate([points["A"].mass_Da, points["B"].mass_Da]), voxel_size_A)


def _onto(first: AlphaCarbons, second: AlphaCarbons, xyz_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 3) that belong to `first`, moved as it lies best on `second` (equal residue numbers on each other)."""
    _, one, two = np.intersect1d(first.numbers, second.numbers, return_indices=True)
    a, b = first.xyz_A[one], second.xyz_A[two]
    turn, _ = Rotation.align_vectors(b - b.mean(0), a - a.mean(0))
    return np.asarray(turn.apply(xyz_A - a.mean(0)) + b.mean(0))


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector))
