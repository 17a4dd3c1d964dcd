"""References of example positions, with templates out of the tomograms that the examples lie in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.picking.location import LocationSettings, locate
from tomotwin_core.picking.references import ReferenceSet
from tomotwin_core.remarks import remark
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, open_tomogram
from tomotwin_core.verification.from_examples import Place, Template, templates_from_examples
from tomotwin_core.verification.locating import acquisition_of

# From fewer examples no shape can be told.
_FEWEST = 3
# Larger ones do not fit the network's window, and take too long to match.
_LARGEST_A = 340.0
# Voxels of all tomograms, at 10 A at least, that are held at a time; those with the most examples come first.
_MOST_VOXELS = 3e8


def with_templates(
    references: ReferenceSet, placed: Sequence[tuple[EmbeddingField, Coordinates]], device: str = "cpu"
) -> tuple[ReferenceSet, dict[str, Template]]:
    """The references, of which the targets with examples have a density where the tomograms gave a good one; and what came of each
    that was tried.

    placed : examples labelled by target, with the embedded tomograms that they lie in (`picking.collect.examples_placed`).
    """
    fields = _fields(placed)
    examples = {name: Coordinates.concatenate([t for f, t in placed if f.tomogram == name]) for name in fields}
    counts = {t.name: sum(int((table.label == t.name).sum()) for table in examples.values()) for t in references.targets}
    diameters = {
        t.name: t.diameter_A
        for t in references.targets
        if t.density is None and counts[t.name] >= _FEWEST and t.diameter_A <= _LARGEST_A
    }
    if not diameters or _are_gone(fields):
        return references, {}
    places = [_place(references, field, examples[name]) for name, field in fields.items()]
    found = templates_from_examples(places, diameters, acquisition_of(references), device)
    good = {name: one for name, one in found.items() if one.is_good}
    targets = tuple(
        replace(t, density=good[t.name].density, decoy=good[t.name].decoy) if t.name in good else t
        for t in references.targets
    )
    told = {
        n: {"copies": t.copies, "resolution_A": t.resolution_A if np.isfinite(t.resolution_A) else None}
        for n, t in found.items()
    }
    return replace(references, targets=targets, made_by={**references.made_by, "templates": told}), found


def _fields(placed: Sequence[tuple[EmbeddingField, Coordinates]]) -> dict[str, EmbeddingField]:
    """The embedded tomograms by name, those with the most examples first, and no more than can be held."""
    fields = {field.tomogram: field for field, _ in placed}
    counts = {name: sum(len(table) for f, table in placed if f.tomogram == name) for name in fields}
    kept: dict[str, EmbeddingField] = {}
    voxels = 0.0
    for name in sorted(fields, key=lambda name: (-counts[name], name)):
        field = fields[name]
        voxels += float(np.prod(field.tomogram_shape)) * min(field.voxel_size_A / MODEL_VOXEL_SIZE_A, 1.0) ** 3
        if not kept or voxels <= _MOST_VOXELS:
            kept[name] = field
    return kept


def _are_gone(fields: Mapping[str, EmbeddingField]) -> bool:
    """Whether the tomograms cannot be looked at, which is told."""
    gone = [str(f.attributes["source"]) for f in fields.values() if not Path(f.attributes["source"]).is_file()]
    if gone:
        remark(
            f"{gone[0]}: the tomogram of the examples is not there, so no template is made from it, and picks will not be verified; put it back "
            "where it was embedded, and make the references again."
        )
    return bool(gone)


def _place(references: ReferenceSet, field: EmbeddingField, examples: Coordinates) -> Place:
    competing = LocationSettings(min_score=-1.0)
    return Place(
        open_tomogram(field.attributes["source"], field.voxel_size_A),
        field.contrast,
        locate(field, references, competing),
        locate(field, references, replace(competing, competition=False)),
        examples,
        partial(_similarity, field, references),
    )


def _similarity(
    field: EmbeddingField, references: ReferenceSet, name: str, xyz: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Places (n, 3) x, y, z in the tomogram's voxels -> the similarity (n,) of the embeddings there to a target."""
    return np.asarray(references.similarity(field.at(xyz))[:, references.names.index(name)], np.float64)
