"""Atomic models (mmCIF, PDB) -> points with masses, through gemmi.

In: a file, gzipped or not. Out: positions in A (x, y, z) and a mass in Da per point, the biological assembly built
where the file names one, water removed. A residue of a chain has its whole mass whatever atoms of it were modelled,
spread over these: so CA/P traces, poly-alanine models and full models of one molecule weigh the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from tomotwin_core.errors import UserError

STRUCTURE_SUFFIXES = (".cif", ".mmcif", ".pdb", ".ent")
# Mean mass of one residue in a chain (Da), for traces whose residue name gemmi does not know.
_MEAN_AMINO_ACID_DA = 110.0
_MEAN_NUCLEOTIDE_DA = 325.0
# For ligands: most files have no hydrogens.
_MASS_WITH_HYDROGENS = 1.065
_WATER_LOST_IN_BOND_DA = 18.015


@dataclass(frozen=True)
class AtomicPoints:
    """Point masses of a molecule: `xyz_A` (n, 3) in Angstrom, columns x, y, z; `mass_Da` (n,)."""

    xyz_A: np.ndarray
    mass_Da: np.ndarray

    @property
    def centre_A(self) -> np.ndarray:
        """Centre of mass (3,) x, y, z."""
        return np.asarray((self.xyz_A * self.mass_Da[:, None]).sum(0) / self.mass_Da.sum())

    @property
    def total_kDa(self) -> float:
        return float(self.mass_Da.sum()) / 1000.0


@dataclass(frozen=True)
class AlphaCarbons:
    """One protein chain: `xyz_A` (n, 3) x, y, z of its alpha carbons, residue names (three letters) and numbers."""

    chain: str
    xyz_A: np.ndarray
    residues: tuple[str, ...]
    numbers: np.ndarray


def is_structure_file(path: Path) -> bool:
    """Whether the name is that of an atomic model (.cif, .pdb, .ent, also gzipped)."""
    name = path.name.lower().removesuffix(".gz")
    return name.endswith(STRUCTURE_SUFFIXES)


def read_atoms(path: Path | str, assembly: bool = True, chain: str | None = None) -> AtomicPoints:
    """Read an atomic model as point masses.

    Parameters
    ----------
    path : mmCIF or PDB file, gzipped or not.
    assembly : build the first biological assembly if the file names one (REMARK 350, _pdbx_struct_assembly).
    chain : read this one alone.

    Raises
    ------
    UserError : the file is missing, cannot be parsed, or has no atoms.
    """
    model = _read_model(Path(path), assembly)
    xyz: list[tuple[float, float, float]] = []
    mass: list[float] = []
    for one in model:
        for residue in one if chain in (None, one.name) else ():
            for position, weight in _residue_points(residue):
                xyz.append(position)
                mass.append(weight)
    if not xyz:
        raise UserError(f"{path}: holds no atoms besides water; give a structure with coordinates")
    return AtomicPoints(np.asarray(xyz, dtype=np.float64), np.asarray(mass, dtype=np.float64))


def read_alpha_carbons(path: Path | str, assembly: bool = True) -> list[AlphaCarbons]:
    """The alpha carbons of every protein chain, from full models and traces alike; UserError as `read_atoms`."""
    chains = []
    for chain in _read_model(Path(path), assembly):
        found = [(r, r.find_atom("CA", "*")) for r in chain if gemmi.find_tabulated_residue(r.name).is_amino_acid()]
        kept = [(r, ca) for r, ca in found if ca is not None]
        if kept:
            xyz = np.array([ca.pos.tolist() for _, ca in kept])
            chains.append(
                AlphaCarbons(chain.name, xyz, tuple(r.name for r, _ in kept), np.array([r.seqid.num for r, _ in kept]))
            )
    return chains


def _read_model(path: Path, assembly: bool) -> gemmi.Model:
    if not path.is_file():
        raise UserError(f"{path}: no such structure file; give an existing .cif or .pdb file")
    try:
        structure = gemmi.read_structure(str(path))
    except Exception as error:  # gemmi raises RuntimeError, ValueError and UnicodeDecodeError alike
        raise UserError(
            f"{path}: cannot be read as an mmCIF or PDB structure ({str(error).partition(chr(10))[0]}); check the file"
        ) from error
    if len(structure) == 0:
        raise UserError(f"{path}: holds no atoms; give a structure with coordinates")
    structure.remove_waters()
    model = structure[0]
    if assembly and len(structure.assemblies) > 0:
        model = gemmi.make_assembly(structure.assemblies[0], model, gemmi.HowToNameCopiedChain.AddNumber)
    return model


def _residue_points(residue: gemmi.Residue) -> list[tuple[tuple[float, float, float], float]]:
    atoms = [a for a in residue if not a.is_hydrogen() and a.altloc in ("\0", "A", "1")] or list(residue)
    weights = [a.element.weight * _MASS_WITH_HYDROGENS for a in atoms]
    whole = _chain_residue_mass(residue, atoms)
    scale = whole / sum(weights) if whole else 1.0
    return [((a.pos.x, a.pos.y, a.pos.z), w * scale) for a, w in zip(atoms, weights, strict=True)]


def _chain_residue_mass(residue: gemmi.Residue, atoms: list[gemmi.Atom]) -> float | None:
    """Mass of a residue in a chain (Da), however many of its atoms were modelled; None for ligands and ions."""
    info = gemmi.find_tabulated_residue(residue.name)
    if info.is_amino_acid() or info.is_nucleic_acid():
        return float(info.weight - _WATER_LOST_IN_BOND_DA)
    if len(atoms) == 1 and atoms[0].name == "CA" and atoms[0].element.name == "C":
        return _MEAN_AMINO_ACID_DA
    if len(atoms) == 1 and atoms[0].name in ("P", "C4'", "C1'"):
        return _MEAN_NUCLEOTIDE_DA
    return None
