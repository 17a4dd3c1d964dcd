"""Build a density library from folders of structures and maps, with families and a held-out split.

An honest test needs molecules that look like nothing in training. Names and sequences do not tell that at 10 A, so
families are found on the densities themselves: every pair is compared over orientations and handedness-keeping
rotations by the normalised correlation of their centred densities at 20 A; molecules above a threshold are joined
(single linkage), and a family is held out whole or not at all.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from tomotwin_core.errors import UserError
from tomotwin_core.progress import progress
from tomotwin_core.remarks import remark
from tomotwin_core.structures.atoms import is_structure_file
from tomotwin_core.structures.density import Density, at_voxel_size, read_density_map
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.structures.sources import density_from_structure

LIBRARY_VOXEL_SIZE_A = 5.0
# A molecule must fit the 370 A window to be a target.
LARGEST_TARGET_A = 340.0
FAMILY_CORRELATION = 0.96
LOOKALIKE_CORRELATION = 0.98
# What a manifest notes of a map whose bilayer lies across z near the middle of its box, and where: Cav1.1's lies there when
# its atomic model with the frame found in that is fitted into the map, and the others' membrane parts likewise.
_MEMBRANE_PREFIXES, _KINDS = ("mb_", "syn_"), ("soluble", "membrane")
_ALIGNED, _ALIGNED_AT_A = "membrane-aligned", -15.0


def build_library(folder: Path | str, voxel_size_A: float = LIBRARY_VOXEL_SIZE_A) -> DensityLibrary:
    """Densities of all structures and maps of a folder.

    Structures (.cif, .pdb, gzipped or not) lie in the folder, maps (.mrc, .mrc.gz) in it or in its sub-folder `maps`.
    Where a `manifest.csv` lies beside them its columns id, name, mw_kda (or mw_kda_est), source, licence and kind (soluble, or
    membrane: no target for picking) are taken over. Without a kind, names that begin with mb_ or syn_ are those of membrane
    proteins. One of several that cannot be read is told and left out. The bilayer about membrane proteins is found from their atoms; for a map it lies
    across z near the middle of the box where the manifest's column note says "membrane-aligned".
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a folder with structures or maps")
    library = DensityLibrary({}, {})
    files = (
        sorted(p for p in folder.iterdir() if is_structure_file(p))
        + sorted(_maps(folder))
        + sorted(_maps(folder / "maps"))
    )
    if not files:
        raise UserError(f"{folder}: holds no .cif, .pdb or .mrc file; give a folder with structures or maps")
    described = {**_manifest(folder / "manifest.csv"), **_manifest(folder / "maps" / "manifest.csv")}
    for path in progress(files, desc="densities"):
        entry_id = path.name.split(".")[0]
        row = described.get((path.parent.name == "maps", entry_id), {})
        if entry_id in library.entries:
            entry_id += "_map"
        # One molecule of many that cannot be read does not stop the others.
        try:
            density = _density(path, row, voxel_size_A)
        except UserError as error:
            if len(files) == 1:
                raise
            remark(f"{path.name} is left out of the library: {error}")
            continue
        library.add(
            entry_id,
            density,
            name=row.get("name", entry_id),
            source=row.get("source", path.name),
            licence=row.get("licence", "not stated"),
            kind=_kind(path, row, entry_id, density),
        )
    if not library.entries:
        raise UserError(f"{folder}: none of its {len(files)} structures and maps can be read; see above")
    return library


def _kind(path: Path, row: dict[str, str], entry_id: str, density: Density) -> str:
    """Whether a molecule sits in a membrane: as the manifest's column kind says, else by its name, which is told."""
    said = row.get("kind", "").strip().lower()
    if said in _KINDS:
        return said
    if said:
        raise UserError(
            f"{path.name}: the manifest calls it {said!r}; give one of {', '.join(_KINDS)} in the column kind"
        )
    if entry_id.startswith(_MEMBRANE_PREFIXES):
        if density.membrane is None:
            remark(
                f"{path.name} is taken for a membrane protein, no target for picking, because its name begins with "
                f"{' or '.join(_MEMBRANE_PREFIXES)}; give a column kind in manifest.csv if it is soluble."
            )
        return "membrane"
    return "soluble"


def _maps(folder: Path) -> Iterable[Path]:
    return (
        (p for p in folder.glob("*") if p.name.lower().removesuffix(".gz").endswith((".mrc", ".map")))
        if folder.is_dir()
        else ()
    )


def _manifest(path: Path) -> dict[tuple[bool, str], dict[str, str]]:
    if not path.is_file():
        return {}
    with open(path, newline="") as lines:
        return {(path.parent.name == "maps", row["id"]): row for row in csv.DictReader(lines)}


def _density(path: Path, row: dict[str, str], voxel_size_A: float) -> Density:
    if is_structure_file(path):
        return density_from_structure(path, voxel_size_A)
    mass = row.get("mw_kda_est") or row.get("mw_kda")
    voxel = row.get("voxel_A")
    return read_density_map(
        path,
        float(voxel) if voxel else None,
        float(mass) if mass else None,
        bilayer_at_A=_ALIGNED_AT_A if row.get("note") == _ALIGNED else None,
    )


def similarity_of_shapes(
    densities: list[Density], n_rotations: int = 1500, voxel_size_A: float = 20.0, seed: int = 0
) -> np.ndarray:
    """Best normalised correlation of every pair over rotations, (n, n) float32.

    Both are centred on their centre of mass; rotations are uniform random and not refined, so the true best is a little
    higher than what is found.
    """
    edge = 19
    rng = np.random.default_rng(seed)
    rotations = Rotation.random(n_rotations, random_state=rng).as_matrix()
    axis = np.arange(edge) - edge // 2
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)
    boxes = np.zeros((len(densities), edge**3), np.float32)
    coarse = [at_voxel_size(d, voxel_size_A).values for d in densities]
    for i, values in enumerate(coarse):
        boxes[i] = _sample(values, points)
    boxes /= np.linalg.norm(boxes, axis=1, keepdims=True)
    best = np.zeros((len(densities), len(densities)), np.float32)
    for i, values in enumerate(progress(coarse, desc="shape similarity")):
        turned = np.stack([_sample(values, r @ points) for r in rotations])
        turned /= np.linalg.norm(turned, axis=1, keepdims=True)
        best[i] = (turned @ boxes.T).max(0)
    return np.maximum(best, best.T)


def _sample(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    centre = (np.array(values.shape)[:, None] - 1) / 2
    return ndimage.map_coordinates(values, points + centre, order=1, mode="constant").astype(np.float32)


def assign_families(
    library: DensityLibrary, n_heldout: int, seed: int = 0, together: Iterable[Iterable[str]] = ()
) -> np.ndarray:
    """Give each entry a family and a split; returns the similarity matrix in the order of `library.ids()`.

    `together` names groups that belong to one family whatever their correlation (a capsid and its pentamer). About
    `n_heldout` targets are held out: whole families drawn at random, small ones only, evenly over mass classes (below
    150, 150-500, above 500 kDa).
    """
    ids = library.ids()
    similarity = similarity_of_shapes([library.density(i) for i in ids])
    joined = similarity > FAMILY_CORRELATION
    index = {i: n for n, i in enumerate(ids)}
    for group in together:
        members = [index[i] for i in group if i in index]
        joined[np.ix_(members, members)] = True
    _, family = connected_components(coo_matrix(joined), directed=False)
    rng = np.random.default_rng(seed)
    target = {
        i for i in ids if library.entries[i].diameter_A <= LARGEST_TARGET_A and library.entries[i].kind == "soluble"
    }
    heldout: set[int] = set()
    for low, high, share in ((0, 150, 0.4), (150, 500, 0.4), (500, 1e9, 0.2)):
        wanted = round(n_heldout * share)
        candidates = [
            f for f in np.unique(family) if _fits(library, [i for i in ids if family[index[i]] == f], target, low, high)
        ]
        taken = 0
        for f in rng.permutation(candidates):
            if taken >= wanted:
                break
            heldout.add(int(f))
            taken += int((family == f).sum())
    split = {
        i: "crowder" if i not in target else ("heldout" if int(family[index[i]]) in heldout else "train") for i in ids
    }
    for i in ids:
        row = similarity[index[i]]
        library.entries[i] = replace(
            library.entries[i],
            family=int(family[index[i]]),
            split=split[i],
            lookalikes=tuple(j for j in ids if j != i and row[index[j]] > LOOKALIKE_CORRELATION),
            nearest_train=round(float(max(row[index[j]] for j in ids if j != i and split[j] == "train")), 3),
        )
    return similarity


def _fits(library: DensityLibrary, members: list[str], target: set[str], low: float, high: float) -> bool:
    return len(members) <= 3 and all(i in target and low <= library.entries[i].mass_kDa < high for i in members)
