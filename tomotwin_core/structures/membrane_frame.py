"""Where the bilayer lies about a membrane protein, found from its alpha carbons.

The search is that of TMDET (Tusnady, Dosztanyi and Simon 2004) and PPM (Lomize et al. 2006): over all directions and
heights, the slab that is cheapest to put into lipid. Its cost is the sum over residues inside of the free energy of
transfer from water to octanol (White and Wimley 1999) times how exposed the residue is. Exposure is read from alpha
carbons alone, so that traces do as well as full models: the fewer alpha carbons lie in the half sphere of 13 A that the
side chain points into, the more exposed (half-sphere exposure, Hamelryck 2005). As in TMDET the symmetry axis of a complex
of like chains is taken for the normal where it is nearly as good as the best direction.

Which side of the membrane is which cannot be told that way. By convention the normal points to the side where more of the
protein lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tomotwin_core.structures.atoms import AlphaCarbons

# White and Wimley (1999), whole residues, water to octanol, kcal/mol; charged at pH 8.
_TRANSFER = {
    "ALA": 0.50, "ARG": 1.81, "ASN": 0.85, "ASP": 3.64, "CYS": -0.02, "GLN": 0.77, "GLU": 3.63, "GLY": 1.15, "HIS": 2.33,
    "ILE": -1.12, "LEU": -1.25, "LYS": 2.80, "MET": -0.67, "PHE": -1.71, "PRO": 0.14, "SER": 0.46, "THR": 0.25,
    "TRP": -2.09, "TYR": -0.71, "VAL": -0.46,
}  # fmt: skip
_HALF_SPHERE_A, _BURIED_NEIGHBOURS = 13.0, 16
# The hydrophobic part of a bilayer, thinner in bacterial outer membranes: the mean over these has soft edges.
_THICKNESSES_A = (26.0, 30.0, 34.0)
_DIRECTIONS, _REFINED_DEG, _STEP_A = 1500, (4.0, 2.0, 1.0), 0.5
# A symmetry axis counts from this share of the best direction's gain on.
_AXIS_SHARE = 0.6
# Two chains are like from this share of equal residues on; a turn by less, or with a rise by more, is no point symmetry.
_LIKE_SHARE, _LEAST_RESIDUES, _LEAST_TURN_DEG, _MOST_RISE_A, _MOST_RMSD_A = 0.8, 50, 20.0, 5.0, 3.0
# Another slab that is turned by more than this is another answer.
_ELSEWHERE_DEG = 40.0
# Of 20 membrane proteins and 240 others of the library the former cost -20 kcal/mol or less, the latter 10 or more.
MEMBRANE_BELOW_KCAL = -10.0


@dataclass(frozen=True)
class MembraneFrame:
    """The seat of a protein in a bilayer.

    normal : unit vector x, y, z in the frame of the density, towards the side with more of the protein's mass.
    centre_A : a point of the bilayer's middle plane in A from the middle of the density's box, x, y, z.
    confidence : 0 where another slab, more than 40 degrees away, is as cheap, to 1 where no other is favourable.
    energy_kcal_per_mol : of the transfer; 0 where the frame was given with the structure rather than found.
    """

    normal: tuple[float, float, float]
    centre_A: tuple[float, float, float]
    confidence: float = 1.0
    energy_kcal_per_mol: float = 0.0


def find_membrane(chains: Sequence[AlphaCarbons], origin_A: NDArray[np.float64]) -> MembraneFrame | None:
    """The bilayer about a protein, its centre counted from `origin_A` (x, y, z); None for one that is not made for a
    membrane."""
    xyz = np.concatenate([c.xyz_A for c in chains]) if chains else np.zeros((0, 3))
    if len(xyz) < 10:
        return None
    transfer = np.array([_TRANSFER.get(r, 0.0) for c in chains for r in c.residues])
    cost = transfer * _exposure(xyz, np.concatenate([_side_chains(c.xyz_A) for c in chains]))
    directions = _hemisphere(_DIRECTIONS)
    slabs = np.array([_cheapest_slab(xyz, cost, n) for n in directions])
    normal, (energy, height) = _cheapest(xyz, cost, directions)
    for step in _REFINED_DEG:
        normal, (energy, height) = _cheapest(xyz, cost, np.vstack([normal, _turned_by(normal, np.deg2rad(step))]))
    if energy > MEMBRANE_BELOW_KCAL:
        return None
    axes = _symmetry_axes(chains)
    if len(axes):
        axis, found = _cheapest(xyz, cost, axes)
        if found[0] < _AXIS_SHARE * energy:
            normal, (energy, height) = axis, found
    elsewhere = slabs[np.abs(directions @ normal) < np.cos(np.deg2rad(_ELSEWHERE_DEG)), 0].min()
    inside = np.abs(xyz @ normal - height) < max(_THICKNESSES_A) / 2
    centre = xyz[inside].mean(0)
    centre += (height - centre @ normal) * normal
    if np.count_nonzero(xyz @ normal > height) < len(xyz) / 2:
        normal = -normal
    return MembraneFrame(
        _rounded(normal, 4), _rounded(centre - origin_A, 2), round(float(np.clip(1 - elsewhere / energy, 0, 1)), 3),
        round(float(energy), 1),
    )  # fmt: skip


def _cheapest(
    xyz: NDArray[np.float64], cost: NDArray[np.float64], directions: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    slabs = [_cheapest_slab(xyz, cost, n) for n in directions]
    best = min(range(len(slabs)), key=lambda i: slabs[i])
    return directions[best], slabs[best]


def _symmetry_axes(chains: Sequence[AlphaCarbons]) -> NDArray[np.float64]:
    """Axes (n, 3) of the turns that take one chain onto another like it."""
    axes = []
    for first, second in combinations(chains, 2):
        one = dict(zip(zip(first.numbers, first.residues, strict=True), first.xyz_A, strict=True))
        two = dict(zip(zip(second.numbers, second.residues, strict=True), second.xyz_A, strict=True))
        common = [key for key in one if key in two]
        if len(common) < max(_LIKE_SHARE * min(len(one), len(two)), _LEAST_RESIDUES):
            continue
        a, b = np.array([one[k] for k in common]), np.array([two[k] for k in common])
        turn, residual = Rotation.align_vectors(b - b.mean(0), a - a.mean(0))
        angle = turn.magnitude()
        if residual / np.sqrt(len(common)) > _MOST_RMSD_A or np.rad2deg(angle) < _LEAST_TURN_DEG:
            continue
        axis = turn.as_rotvec() / angle
        if abs((b.mean(0) - a.mean(0)) @ axis) < _MOST_RISE_A:
            axes.append(axis)
    return np.array(axes).reshape(-1, 3)


def _exposure(xyz: NDArray[np.float64], side: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each residue that sees solvent or lipid (n,), 0 to 1."""
    pairs = cKDTree(xyz).query_pairs(_HALF_SPHERE_A, output_type="ndarray")
    first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
    ahead = ((xyz[second] - xyz[first]) * side[first]).sum(1) > 0
    neighbours = np.bincount(first[ahead], minlength=len(xyz))
    # The ends of a chain have no direction: half of all neighbours.
    loose = ~side.any(axis=1)
    neighbours[loose] = np.bincount(first, minlength=len(xyz))[loose] // 2
    return np.asarray(np.clip(1 - neighbours / _BURIED_NEIGHBOURS, 0, 1))


def _side_chains(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Direction of each side chain from the bend of the trace (n, 3); 0 at the ends."""
    bend = np.zeros_like(xyz)
    bend[1:-1] = 2 * xyz[1:-1] - xyz[:-2] - xyz[2:]
    length = np.linalg.norm(bend, axis=1, keepdims=True)
    return np.divide(bend, length, out=np.zeros_like(bend), where=length > 1e-6)


def _cheapest_slab(
    xyz: NDArray[np.float64], cost: NDArray[np.float64], normal: NDArray[np.float64]
) -> tuple[float, float]:
    """Cost and height along `normal` of the cheapest slab across it."""
    height = xyz @ normal
    widest = round(max(_THICKNESSES_A) / _STEP_A)
    lowest = height.min() - max(_THICKNESSES_A)
    bins = ((height - lowest) / _STEP_A).astype(int)
    along = np.bincount(bins, cost, minlength=int(bins.max()) + 1 + widest)
    offset = np.abs(np.arange(widest) - (widest - 1) / 2) * _STEP_A
    slab = np.mean([offset < width / 2 for width in _THICKNESSES_A], axis=0)
    slabs = np.convolve(along, slab, "valid")
    best = int(slabs.argmin())
    return float(slabs[best]), float(lowest + (best + widest / 2) * _STEP_A)


def _hemisphere(count: int) -> NDArray[np.float64]:
    """Directions (count, 3) evenly over half a sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z, angle = 1 - index / count, np.pi * (1 + np.sqrt(5)) * index
    return np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)


def _turned_by(normal: NDArray[np.float64], angle_rad: float) -> NDArray[np.float64]:
    """Twelve directions (12, 3) at an angle from one."""
    across = np.linalg.svd(normal[None])[2][1:]
    around = np.linspace(0, 2 * np.pi, 12, endpoint=False)[:, None]
    return np.asarray(
        np.cos(angle_rad) * normal + np.sin(angle_rad) * (np.cos(around) * across[0] + np.sin(around) * across[1])
    )


def _rounded(vector: NDArray[np.float64], digits: int) -> tuple[float, float, float]:
    x, y, z = (round(float(v), digits) + 0.0 for v in vector)
    return x, y, z
