"""References from example positions in embedded tomograms: the embeddings nearest to each position count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.errors import UserError
from tomotwin_core.picking.examples import NEIGHBOURHOOD, Examples, Strangers, references_from_examples
from tomotwin_core.picking.references import ReferenceSet, Space


def references_from_positions(
    positions: Sequence[tuple[EmbeddingField, Coordinates]],
    name: str | None = None,
    diameter_A: float | None = None,
    prototypes: int = 3,
    space: Space | None = None,
    strangers: Strangers | None = None,
) -> ReferenceSet:
    """One target per label (or one target `name` of all positions) from positions in embedded tomograms.

    `space` is that of other targets to compete with, `strangers` are simulated tomograms of other molecules, if there are any
    (`references_from_examples`). With six or more examples those that do not agree with the rest are dropped.
    """
    examples = examples_at_positions(positions, name, diameter_A)
    everything = np.concatenate([f.sample() for f in {str(f.path): f for f, _ in positions}.values()])
    return references_from_examples(examples, positions[0][0].model_hash, everything, space, strangers, prototypes)


def examples_at_positions(
    positions: Sequence[tuple[EmbeddingField, Coordinates]], name: str | None = None, diameter_A: float | None = None
) -> list[Examples]:
    """The embeddings at positions, by label; UserError for positions that cannot serve.

    Of positions of one label that share a place of the grid the first counts: a place that is listed twice agrees with itself,
    which says nothing of how other copies will score.
    """
    model_hash = positions[0][0].model_hash
    found: dict[str, list[np.ndarray]] = {}
    around: dict[str, list[np.ndarray]] = {}
    diameters: dict[str, list[float]] = {}
    taken: set[tuple[object, ...]] = set()
    for field, table in positions:
        if field.model_hash != model_hash:
            raise UserError(
                f"{field.path} was made with another model than {positions[0][0].path}; embed both with one model"
            )
        table = table.to_voxel_size(field.voxel_size_A)
        outside = ((table.xyz < -0.5) | (table.xyz > np.array(field.tomogram_shape[::-1]) - 0.5)).any(1)
        if outside.any():
            raise UserError(
                f"{int(outside.sum())} of {len(table)} example positions lie outside {field.tomogram}; are they in its voxels?"
            )
        for label, part in table.by_label().items():
            key = name or label or "target"
            grid = np.round(part.xyz * field.voxel_size_A / field.spacing_A).astype(int).tolist()
            fresh = []
            for x, y, z in grid:
                place = (key, str(field.path), x, y, z)
                fresh.append(place not in taken)
                taken.add(place)
            part = part.select(np.array(fresh, bool))
            found.setdefault(key, []).append(field.at(part.xyz))
            around.setdefault(key, []).append(_around(field, part.xyz))
            diameters.setdefault(key, []).extend(float(d) for d in part.diameter_A if np.isfinite(d))
    examples = []
    for key, lists in found.items():
        size = diameter_A or (float(np.median(diameters[key])) if diameters[key] else None)
        if size is None:
            raise UserError(f"{key}: the positions have no diameter; give it with --diameter")
        embeddings = np.concatenate(lists)
        examples.append(Examples(key, embeddings, size, f"{len(embeddings)} positions", np.concatenate(around[key])))
    return examples


def _around(field: EmbeddingField, xyz: np.ndarray) -> np.ndarray:
    """Embeddings (n, 27, 32) at positions (n, 3) in the tomogram's voxels and one step of the grid about them."""
    step = field.spacing_A / field.voxel_size_A
    last = np.array(field.tomogram_shape[::-1]) - 1
    places = np.clip(xyz[:, None] + step * NEIGHBOURHOOD[:, ::-1], 0, np.maximum(last, xyz[:, None]))
    return field.at(places.reshape(-1, 3)).reshape(*places.shape[:2], -1)
