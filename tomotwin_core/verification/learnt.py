"""References of example positions, with templates out of the tomograms that the examples lie in."""

from __future__ import annotations

from collections.abc import Sequence
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
from tomotwin_core.tomogram import open_tomogram
from tomotwin_core.verification.from_examples import Place, Template, templates_from_examples
from tomotwin_core.verification.locating import acquisition_of

# From fewer examples no shape can be told.
_FEWEST = 3


def with_templates(
    references: ReferenceSet, placed: Sequence[tuple[EmbeddingField, Coordinates]], device: str = "cpu"
) -> tuple[ReferenceSet, dict[str, Template]]:
    """The references, of which the targets with examples have a density where the tomograms gave a good one; and what came of each
    that was tried.

    placed : examples labelled by target, with the embedded tomograms that they lie in (`picking.collect.examples_placed`).
    """
    counts = {t.name: sum(int((table.label == t.name).sum()) for _, table in placed) for t in references.targets}
    diameters = {t.name: t.diameter_A for t in references.targets if t.density is None and counts[t.name] >= _FEWEST}
    places = _places(references, placed) if diameters else []
    if not places:
        return references, {}
    found = templates_from_examples(places, diameters, acquisition_of(references), device)
    good = {name: one.density for name, one in found.items() if one.is_good}
    targets = tuple(replace(t, density=good.get(t.name, t.density)) for t in references.targets)
    told = {
        n: {"copies": t.copies, "resolution_A": t.resolution_A if np.isfinite(t.resolution_A) else None}
        for n, t in found.items()
    }
    return replace(references, targets=targets, made_by={**references.made_by, "templates": told}), found


def _places(references: ReferenceSet, placed: Sequence[tuple[EmbeddingField, Coordinates]]) -> list[Place]:
    """The tomograms of the examples, none where one of them is not there."""
    fields = {field.tomogram: field for field, _ in placed}
    gone = [str(f.attributes["source"]) for f in fields.values() if not Path(f.attributes["source"]).is_file()]
    if gone:
        remark(
            f"{gone[0]}: the tomogram of the examples is not there, so no template is made from it, and picks will not be verified; put it back "
            "where it was embedded, and make the references again."
        )
        return []
    best = LocationSettings(min_score=-1.0)
    return [
        Place(
            open_tomogram(field.attributes["source"], field.voxel_size_A),
            field.contrast,
            locate(field, references, best),
            locate(field, references, replace(best, competition=False)),
            Coordinates.concatenate([table for f, table in placed if f.tomogram == name]),
            partial(_similarity, field, references),
        )
        for name, field in fields.items()
    ]


def _similarity(
    field: EmbeddingField, references: ReferenceSet, name: str, xyz: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Places (n, 3) x, y, z in the tomogram's voxels -> the similarity (n,) of the embeddings there to a target."""
    return np.asarray(references.similarity(field.at(xyz))[:, references.names.index(name)], np.float64)
