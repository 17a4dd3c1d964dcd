"""Targets named in any mixture of ways -> one reference set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tomotwin_core.coordinates import read_all_coordinates
from tomotwin_core.embedding import EmbeddingField, open_field
from tomotwin_core.errors import UserError
from tomotwin_core.model import load_model
from tomotwin_core.picking.from_positions import references_from_positions
from tomotwin_core.picking.from_structures import ReferenceSettings, references_from_densities
from tomotwin_core.picking.references import ReferenceSet, Target, require_same_model, unique_names
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.structures import Density, load_density
from tomotwin_core.structures.atoms import is_structure_file

_POSITIONS = (".star", ".coords")
_MAPS = (".mrc", ".map")


def collect_references(
    sources: Sequence[tuple[str, str]],
    embeddings: Sequence[Path],
    model_file: str,
    acquisition: Acquisition,
    settings: ReferenceSettings,
    device: str,
    diameter_A: float | None = None,
    voxel_size_A: float | None = None,
    dark_maps: bool = False,
) -> ReferenceSet:
    """References from (name, source) pairs: maps and structures are simulated together, positions looked up in their
    embedded tomograms."""
    positions = [(n, s) for n, s in sources if s.lower().endswith(_POSITIONS)]
    molecules = [(n, s) for n, s in sources if not s.lower().endswith(_POSITIONS)]
    unique_names([n for n, _ in molecules])
    if positions and not embeddings:
        raise UserError(
            f"{positions[0][1]}: example positions need the embedded tomogram they lie in; give --embedding FILE.zarr"
        )
    fields = {f.tomogram: f for f in map(open_field, embeddings)}
    targets: list[Target] = []
    for name, source in positions:
        targets += _from_positions(name, source, fields, diameter_A)
    model_hash = next(iter(fields.values())).model_hash if positions else ""
    made_by: dict[str, object] = {}
    if molecules:
        model = load_model(model_file)
        densities = {n: _density(s, voxel_size_A, dark_maps) for n, s in molecules}
        made = references_from_densities(densities, model, acquisition, settings, device, dict(molecules))
        if positions:
            require_same_model(made, model_hash, "the embedded tomogram of the examples")
        targets += [replace(t, diameter_A=diameter_A) if diameter_A else t for t in made.targets]
        model_hash, made_by = made.model_hash, made.made_by
    unique_names([t.name for t in targets])
    return ReferenceSet(tuple(targets), model_hash, made_by)


def files_of_folder(folder: Path) -> list[Path]:
    """The maps and structures of a folder, sorted; UserError if there is none."""
    files = sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and (is_structure_file(p) or p.name.lower().removesuffix(".gz").endswith(_MAPS))
    )
    if not files:
        raise UserError(
            f"{folder}: holds no map (.mrc, .map) and no structure (.cif, .pdb); give a folder with references"
        )
    return files


def name_of(source: str) -> str:
    """A target's name from its source: the file's name without its endings, or the id."""
    return Path(source.removeprefix("library:").removeprefix("pdb:")).name.split(".")[0]


def _from_positions(
    name: str, source: str, fields: dict[str, EmbeddingField], diameter_A: float | None
) -> list[Target]:
    only = next(iter(fields.values())) if len(fields) == 1 else None
    tables = read_all_coordinates(
        source,
        tomogram=only.tomogram if only else None,
        voxel_size_A=only.voxel_size_A if only else None,
        shape=only.tomogram_shape if only else None,
    )
    examples = []
    for table in tables:
        field = only if only and len(tables) == 1 else fields.get(table.tomogram)
        if field is None:
            raise UserError(
                f"{source}: has positions in {table.tomogram}, which is none of the embedded tomograms given ({', '.join(fields)})"
            )
        examples.append((field, table))
    return list(references_from_positions(examples, name=name, diameter_A=diameter_A).targets)


def _density(source: str, voxel_size_A: float | None, dark: bool) -> Density:
    if not dark:
        return load_density(source, voxel_size_A=voxel_size_A)
    from tomotwin_core.structures.density import density_from_map
    from tomotwin_core.tomogram import open_tomogram

    opened = open_tomogram(source, voxel_size_A)
    return density_from_map(-opened.slab(0, opened.shape[0]), opened.voxel_size_A)
