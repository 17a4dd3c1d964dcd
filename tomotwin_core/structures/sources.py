"""One way to name a molecule on the command line: a file, `library:ID`, `pdb:ID` or `emdb:ID`."""

from __future__ import annotations

import http.client
import tempfile
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

from tomotwin_core.errors import UserError
from tomotwin_core.structures.atoms import is_structure_file, read_alpha_carbons, read_atoms
from tomotwin_core.structures.density import Density, density_from_points, read_density_map
from tomotwin_core.structures.library import load_library
from tomotwin_core.structures.membrane_frame import find_membrane

RCSB_URL = "https://files.rcsb.org/download/{id}.cif.gz"
EMDB_URL = "https://ftp.ebi.ac.uk/pub/databases/emdb/structures/EMD-{id}/map/emd_{id}.map.gz"
# Fine enough for any tomogram that the model takes, small enough to keep.
STRUCTURE_VOXEL_SIZE_A = 5.0


def load_density(
    source: str, mass_kDa: float | None = None, voxel_size_A: float | None = None, dark_map: bool = False
) -> Density:
    """The density of a molecule named by a structure file, a map, `library:ID`, `pdb:ID` or `emdb:ID`.

    Raises UserError where the source is missing, unreadable or (pdb:, emdb:) out of reach.
    """
    if source.startswith("library:"):
        return load_library().density(source.removeprefix("library:"))
    if source.startswith("pdb:"):
        return _from_rcsb(source.removeprefix("pdb:"))
    if source.startswith("emdb:"):
        return _from_emdb(source.removeprefix("emdb:"), mass_kDa)
    path = Path(source)
    if not path.exists():
        raise UserError(f"{source}: no such file; give a structure, a density map, library:ID, pdb:ID or emdb:ID")
    if is_structure_file(path):
        return density_from_structure(path, STRUCTURE_VOXEL_SIZE_A)
    return read_density_map(path, voxel_size_A, mass_kDa, dark_map)


def density_from_structure(path: Path, voxel_size_A: float) -> Density:
    """The density of an atomic model; with the bilayer about it if it is that of a membrane protein."""
    try:
        points = read_atoms(path)
        density = density_from_points(points.xyz_A, points.mass_Da, voxel_size_A)
        return replace(density, membrane=find_membrane(read_alpha_carbons(path), points.centre_A))
    except UnicodeDecodeError as error:  # gemmi decodes names when they are looked at
        raise UserError(f"{path}: has names in it that are no text (UTF-8); correct them") from error


def _from_rcsb(pdb_id: str) -> Density:
    if not (4 <= len(pdb_id) <= 12 and pdb_id.isascii() and pdb_id.replace("_", "").isalnum()):
        raise UserError(f"pdb:{pdb_id}: not a PDB id; give four characters as in pdb:4v6x")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{pdb_id}.cif.gz"
        _fetch(RCSB_URL.format(id=pdb_id.lower()), target, f"pdb:{pdb_id}", "structure")
        return density_from_structure(target, STRUCTURE_VOXEL_SIZE_A)


def _from_emdb(emdb_id: str, mass_kDa: float | None) -> Density:
    number = emdb_id.upper().removeprefix("EMD-")
    if not (number.isascii() and number.isdigit() and 4 <= len(number) <= 5):
        raise UserError(f"emdb:{emdb_id}: not an EMDB id; give its four or five digits as in emdb:2660")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"emd_{number}.map.gz"
        _fetch(EMDB_URL.format(id=number), target, f"emdb:{emdb_id}", "map")
        return read_density_map(target, mass_kDa=mass_kDa)


def _fetch(url: str, target: Path, source: str, what: str) -> None:
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            target.write_bytes(reply.read())
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise UserError(f"{source}: {url} could not be fetched ({error}); give the {what} as a file instead") from error
