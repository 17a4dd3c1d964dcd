"""Targets named in any mixture of ways -> one reference set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tomotwin_core.coordinates import ENDINGS, Coordinates, read_all_coordinates
from tomotwin_core.embedding import EmbeddingField, open_field
from tomotwin_core.errors import UserError
from tomotwin_core.model import load_model
from tomotwin_core.picking.examples import Examples, Strangers, references_from_examples
from tomotwin_core.picking.from_positions import examples_at_positions
from tomotwin_core.picking.from_structures import references_from_densities
from tomotwin_core.picking.from_subtomograms import examples_of_subtomograms
from tomotwin_core.picking.references import ReferenceSet, require_same_model, unique_names
from tomotwin_core.picking.simulated import ReferenceSettings, require_seen_whole, simulated_world
from tomotwin_core.remarks import remark
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.structures import Density, load_density
from tomotwin_core.structures.atoms import is_structure_file

SUBTOMOGRAMS = "subtomograms:"
PREFIXES = ("library:", "pdb:", "emdb:", SUBTOMOGRAMS)
_CROWD_ALONE = 16
_HARDLY_SEEN_KDA = 50.0
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
    dark_boxes: bool = True,
    simulate: bool = True,
) -> ReferenceSet:
    """References from (name, source) pairs of any kind: maps and structures are simulated together, positions looked up in
    their embedded tomograms, subtomograms embedded.  Positions without a name make a target for each of their labels;
    with one label or none, one target called like the file.

    dark_maps, dark_boxes : whether the molecule is dark in maps, in subtomograms.  simulate : whether examples are compared
    in the space of simulated molecules and their scores calibrated there; maps and structures always are.
    """
    positions = [(n, s) for n, s in sources if is_positions_file(s)]
    boxes = [(n, s) for n, s in sources if s.startswith(SUBTOMOGRAMS)]
    molecules = [(n, s) for n, s in sources if (n, s) not in positions and (n, s) not in boxes]
    unique_names([n for n, _ in molecules + boxes])
    if positions and not embeddings:
        raise UserError(
            f"{positions[0][1]}: example positions need the embedded tomogram they lie in; give --embedding FILE.zarr"
        )
    fields = {f.tomogram: f for f in map(open_field, embeddings)}
    examples = [one for name, source in positions for one in _at_positions(name, source, fields, diameter_A)]
    simulated = bool(molecules) or simulate
    model = load_model(model_file) if simulated or boxes else None
    model_hash = model.hash if model else next(iter(fields.values())).model_hash
    for field in fields.values():
        require_same_model(ReferenceSet((), model_hash), field.model_hash, str(field.path))
    if model and boxes:
        dark: Literal["dark", "bright"] = "dark" if dark_boxes else "bright"
        for name, source in boxes:
            place = Path(source.removeprefix(SUBTOMOGRAMS))
            examples.append(examples_of_subtomograms(name, place, model, diameter_A, voxel_size_A, dark, device))
    unique_names([n for n, _ in molecules] + [one.name for one in examples])
    found, seen = ReferenceSet((), model_hash), []
    molecules, densities = _loaded(molecules, alone=not examples, voxel_size_A=voxel_size_A, dark_map=dark_maps)
    if model and simulated:
        # Where all of them are there for comparison, more kinds tell more.
        crowd = settings if molecules else replace(settings, crowd=max(settings.crowd, _CROWD_ALONE))
        seen = simulated_world(densities, model, acquisition, crowd, device)
    if model and molecules:
        found = references_from_densities(densities, model, acquisition, settings, device, dict(molecules), seen)
        if diameter_A:
            found = replace(found, targets=tuple(replace(t, diameter_A=diameter_A) for t in found.targets))
    if not examples:
        return found
    everything = np.concatenate([f.sample() for f in fields.values()]) if fields else None
    strangers = Strangers(seen, settings.seed) if seen else None
    # The first targets decide the space in which all of them compete.
    space = found.space if molecules else None
    more = references_from_examples(examples, model_hash, everything, space, strangers, seed=settings.seed)
    made_by = found.made_by or {"acquisition": asdict(acquisition), "reference": asdict(settings)}
    background = found.background if molecules else more.background
    return replace(more, targets=found.targets + more.targets, made_by=made_by, background=background)


def examples_placed(
    sources: Sequence[tuple[str, str]], embeddings: Sequence[Path]
) -> list[tuple[EmbeddingField, Coordinates]]:
    """The positions among these sources, labelled with the names of their targets, each table with the embedded tomogram that
    it lies in and in its voxels."""
    fields = {f.tomogram: f for f in map(open_field, embeddings)}
    placed = []
    for name, source in sources:
        if is_positions_file(source):
            tables = _placed(source, fields)
            called = _called(name, source, tables)
            for field, table in tables:
                table = table.to_voxel_size(field.voxel_size_A)
                labels = [called or str(label) or "target" for label in table.label]
                placed.append((field, replace(table, label=np.array(labels, dtype=object))))
    return placed


def _loaded(
    molecules: Sequence[tuple[str, str]], alone: bool, voxel_size_A: float | None, dark_map: bool
) -> tuple[list[tuple[str, str]], dict[str, Density]]:
    """The molecules that can serve, and their densities by name; one of several that cannot is told and passed over."""
    kept, densities = [], {}
    for name, source in molecules:
        try:
            density = load_density(source, voxel_size_A=voxel_size_A, dark_map=dark_map)
            require_seen_whole(name, density)
        except UserError as error:
            if alone and len(molecules) == 1:
                raise
            remark(f"{name} is passed over: {error}")
            continue
        if density.mass_kDa < _HARDLY_SEEN_KDA:
            remark(
                f"{name} is taken for a molecule of {density.mass_kDa:.0f} kDa, {density.diameter_A:.0f} A across: so small ones are hardly "
                "seen in tomograms."
            )
        kept.append((name, source))
        densities[name] = density
    if alone and not kept:
        raise UserError(f"none of the {len(molecules)} targets can serve as a reference ({', '.join(n for n, _ in molecules)}); see above")
    return kept, densities


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
    for prefix in PREFIXES:
        source = source.removeprefix(prefix)
    return Path(source).name.split(".")[0]


def _at_positions(
    name: str, source: str, fields: dict[str, EmbeddingField], diameter_A: float | None
) -> list[Examples]:
    tables = _placed(source, fields)
    if not any(len(table) for _, table in tables):
        raise UserError(f"{source}: holds no positions; give examples of the target, at least one")
    return examples_at_positions(tables, _called(name, source, tables), diameter_A)


def _called(name: str, source: str, tables: Sequence[tuple[EmbeddingField, Coordinates]]) -> str | None:
    """The one name of all these positions, or None where their labels name them."""
    labels = {str(label) for _, table in tables for label in table.label}
    return name or (name_of(source) if len(labels) <= 1 else None)


def _placed(source: str, fields: dict[str, EmbeddingField]) -> list[tuple[EmbeddingField, Coordinates]]:
    """The positions of a file, each table with the embedded tomogram that it lies in."""
    only = next(iter(fields.values())) if len(fields) == 1 else None
    # A file that does not name its tomogram is called after it (TS_01_ribosome.coords), the longest name first.
    called = max((name for name in fields if name in Path(source).name), key=len, default=None)
    tables = read_all_coordinates(
        source,
        tomogram=only.tomogram if only else called,
        voxel_size_A=only.voxel_size_A if only else {name: field.voxel_size_A for name, field in fields.items()},
        shape=only.tomogram_shape if only else {name: field.tomogram_shape for name, field in fields.items()},
    )
    if not any(map(len, tables)):
        raise UserError(f"{source}: holds no positions; give a file with examples")
    placed = []
    for table in tables:
        field = only if only and len(tables) == 1 else fields.get(table.tomogram)
        if field is None:
            raise UserError(
                f"{source}: has positions in {table.tomogram}, which is none of the embedded tomograms given "
                f"({', '.join(fields)})"
            )
        placed.append((field, table))
    return placed
