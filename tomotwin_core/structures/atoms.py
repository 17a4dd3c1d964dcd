"""Atomic models (mmCIF, PDB) -> points with masses, through gemmi.

In: a file, gzipped or not. Out: positions in A (x, y, z) and a mass in Da per point, the biological assembly built
where the file names one, water removed. A residue of a chain has its whole mass whatever atoms of it were modelled,
spread over these: so CA/P traces, poly-alanine models and full models of one molecule weigh the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from tomotwin_core.errors import UserError
from tomotwin_core.remarks import remark

STRUCTURE_SUFFIXES = (".cif", ".mmcif", ".pdb", ".ent")
# Mean mass of one residue in a chain (Da), for traces whose residue name gemmi does not know.
_MEAN_AMINO_ACID_DA = 110.0
_MEAN_NUCLEOTIDE_DA = 325.0
# For ligands: most files have no hydrogens.
_MASS_WITH_HYDROGENS = 1.065
_WATER_LOST_IN_BOND_DA = 18.015
# Residues that mark a bilayer: dummy atoms of OPM and PPM, the frame of Rosetta.
_MARKERS = frozenset({"DUM", "MEM"})
# Water and salt of simulations, under names that are not those of the PDB.
_SOLVENT = frozenset(
    {
        "TIP",
        "TIP3",
        "TP3",
        "TIP4",
        "TP4",
        "TIP5",
        "T3P",
        "T4P",
        "SOL",
        "SPC",
        "OPC",
        "WAT",
        "W",
        "PW",
        "SOD",
        "CLA",
        "POT",
    }
)
_MANY_OTHERS = 0.3
# Atoms further apart are a mistake in the file; a giant virus is as wide.
_WIDEST_A = 2500.0


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
    others: dict[str, float] = {}
    for one in model:
        for residue in one if chain in (None, one.name) else ():
            for position, weight in _residue_points(residue):
                xyz.append(position)
                mass.append(weight)
                if not _in_a_chain(residue):
                    others[residue.name] = others.get(residue.name, 0.0) + weight
    if not xyz:
        raise UserError(f"{path}: holds no atoms of a molecule; give a structure with coordinates")
    points = AtomicPoints(np.asarray(xyz, dtype=np.float64), np.asarray(mass, dtype=np.float64))
    _require_sense(path, points)
    if sum(others.values()) > _MANY_OTHERS * points.mass_Da.sum():
        named = ", ".join(sorted(others, key=lambda name: -others[name])[:3])
        remark(
            f"{path}: {sum(others.values()) / points.mass_Da.sum():.0%} of its mass is neither protein nor nucleic acid ({named}); all of it "
            "is taken for the molecule."
        )
    return points


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
    _without_markers(path, model)
    if len(structure) > 1:
        remark(f"{path}: holds {len(structure)} models ({_apart(structure)}); the first alone is taken.")
    if assembly and len(structure.assemblies) > 0:
        model = gemmi.make_assembly(structure.assemblies[0], model, gemmi.HowToNameCopiedChain.AddNumber)
    return model


def _without_markers(path: Path, model: gemmi.Model) -> None:
    """Take off what stands in a file and is no molecule: dummy atoms that mark a membrane, the solvent of a simulation."""
    found: Counter[str] = Counter()
    for chain in model:
        for index in reversed(range(len(chain))):
            if chain[index].name.upper() in _MARKERS | _SOLVENT:
                found[chain[index].name] += 1
                del chain[index]
    if found:
        named = ", ".join(f"{count} {name}" for name, count in found.most_common(3))
        remark(f"{path}: {named} are markers or solvent and left out.")


def _apart(structure: gemmi.Structure) -> str:
    """In words, whether the models of a file lie on each other, as those of an NMR ensemble, or beside each other."""
    middles = []
    for model in structure:
        places = np.array([a.pos.tolist() for chain in model for residue in chain for a in residue]).reshape(-1, 3)
        if len(places):
            middles.append(places.mean(0))
            spread = float(np.sqrt(places.var(0).sum()))
    if len(middles) > 1 and float(np.ptp(np.array(middles), axis=0).max()) > spread / 2:
        return "which lie apart: parts of an assembly belong into one model"
    return "on one place"


def _require_sense(path: Path | str, points: AtomicPoints) -> None:
    """A `UserError` for places that are no numbers or further apart than in any molecule."""
    if not np.isfinite(points.xyz_A).all():
        raise UserError(f"{path}: has atoms whose coordinates are no numbers; correct or remove them")
    widest = float(np.ptp(points.xyz_A, axis=0).max())
    if widest > _WIDEST_A:
        raise UserError(
            f"{path}: its atoms lie {widest:.3g} A apart, which no molecule is wide; correct their coordinates"
        )


def _in_a_chain(residue: gemmi.Residue) -> bool:
    """Whether a residue is one of a protein or nucleic acid."""
    info = gemmi.find_tabulated_residue(residue.name)
    return bool(info.is_amino_acid() or info.is_nucleic_acid() or len(residue) == 1)


def _residue_points(residue: gemmi.Residue) -> list[tuple[tuple[float, float, float], float]]:
    atoms = [a for a in residue if not a.is_hydrogen() and a.altloc in ("\0", "A", "1")] or list(residue)
    weights = [0.0 if a.element.name == "X" else a.element.weight * _MASS_WITH_HYDROGENS for a in atoms]
    whole = _chain_residue_mass(residue, atoms)
    scale = whole / sum(weights) if whole and sum(weights) > 0 else 1.0
    # An element that is not known weighs nothing, and says nothing of where mass is.
    return [((a.pos.x, a.pos.y, a.pos.z), w * scale) for a, w in zip(atoms, weights, strict=True) if w > 0]


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
