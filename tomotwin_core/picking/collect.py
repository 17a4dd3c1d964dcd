"""Targets named in any mixture of ways -> one reference set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tomotwin_core.coordinates import ENDINGS, Coordinates, read_all_coordinates
from tomotwin_core.embedding import EmbeddingField, open_field
from tomotwin_core.errors import UserError
from tomotwin_core.model import load_model
from tomotwin_core.picking.from_positions import references_from_positions
from tomotwin_core.picking.from_structures import references_from_densities
from tomotwin_core.picking.references import ReferenceSet, require_same_model, unique_names
from tomotwin_core.picking.simulated import ReferenceSettings
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.structures import load_density
from tomotwin_core.structures.atoms import is_structure_file

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
    embedded tomograms.  Positions without a name make a target for each of their labels; with one label or none,
    one target called like the file."""
    positions = [(n, s) for n, s in sources if is_positions_file(s)]
    molecules = [(n, s) for n, s in sources if not is_positions_file(s)]
    unique_names([n for n, _ in molecules])
    if positions and not embeddings:
        raise UserError(
            f"{positions[0][1]}: example positions need the embedded tomogram they lie in; give --embedding FILE.zarr"
        )
    fields = {f.tomogram: f for f in map(open_field, embeddings)}
    found = ReferenceSet((), "")
    if molecules:
        densities = {n: load_density(s, voxel_size_A=voxel_size_A, dark_map=dark_maps) for n, s in molecules}
        found = references_from_densities(
            densities, load_model(model_file), acquisition, settings, device, dict(molecules)
        )
        if diameter_A:
            found = replace(found, targets=tuple(replace(t, diameter_A=diameter_A) for t in found.targets))
    for name, source in positions:
        examples = _examples(source, fields)
        for field, _ in examples:
            if found.targets:
                require_same_model(found, field.model_hash, str(field.path))
        # The first targets decide the space in which all of them compete.
        space = found.space if found.targets else None
        labels = {str(label) for _, table in examples for label in table.label}
        called = name or (name_of(source) if len(labels) <= 1 else None)
        more = references_from_positions(examples, name=called, diameter_A=diameter_A, space=space)
        found = replace(more, targets=found.targets + more.targets, made_by=found.made_by)
    unique_names([t.name for t in found.targets])
    return found


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


def is_positions_file(source: str) -> bool:
    """Whether the name is that of a coordinates file, of whatever format."""
    return source.lower().endswith(ENDINGS)


def name_of(source: str) -> str:
    """A target's name from its source: the file's name without its endings, or the id."""
    return Path(source.removeprefix("library:").removeprefix("pdb:")).name.split(".")[0]


def _examples(source: str, fields: dict[str, EmbeddingField]) -> list[tuple[EmbeddingField, Coordinates]]:
    """The positions of a file, each table with the embedded tomogram that it lies in."""
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
                f"{source}: has positions in {table.tomogram}, which is none of the embedded tomograms given "
                f"({', '.join(fields)})"
            )
        examples.append((field, table))
    return examples
