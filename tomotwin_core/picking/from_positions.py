"""References from example positions in an embedded tomogram.

A few examples cannot tell how copies of one molecule scatter. The space of comparison is then that of the tomograms
themselves: centred on their mean embedding and whitened by their whole covariance, most of which is background and noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.errors import UserError
from tomotwin_core.picking.references import ReferenceSet, Space, Target, prototypes_of

# Examples farther than this many deviations from the others' agreement are left out.
_OUTLIER = 2.5


def references_from_positions(
    examples: Sequence[tuple[EmbeddingField, Coordinates]],
    name: str | None = None,
    diameter_A: float | None = None,
    prototypes: int = 3,
    space: Space | None = None,
) -> ReferenceSet:
    """One target per label (or one target `name` of all positions) from positions in embedded tomograms.

    `space` is that of other targets to compete with, if there are any. The embedding nearest to each position counts;
    with six or more examples those that do not agree with the rest are dropped.
    """
    model_hash = examples[0][0].model_hash
    found: dict[str, list[np.ndarray]] = {}
    diameters: dict[str, list[float]] = {}
    for field, table in examples:
        if field.model_hash != model_hash:
            raise UserError(
                f"{field.path} was made with another model than {examples[0][0].path}; embed both with one model"
            )
        table = table.to_voxel_size(field.voxel_size_A)
        outside = ((table.xyz < -0.5) | (table.xyz > np.array(field.tomogram_shape[::-1]) - 0.5)).any(1)
        if outside.any():
            raise UserError(
                f"{int(outside.sum())} of {len(table)} example positions lie outside {field.tomogram}; are they in its voxels?"
            )
        for label, part in table.by_label().items():
            key = name or label or "target"
            found.setdefault(key, []).append(field.at(part.xyz))
            diameters.setdefault(key, []).extend(float(d) for d in part.diameter_A if np.isfinite(d))
    if space is None:
        everything = np.concatenate([f.sample() for f in {str(f.path): f for f, _ in examples}.values()])
        space = Space.fitted(everything, np.zeros(len(everything), int), everything)
    targets = []
    for key, lists in found.items():
        embeddings = _agreeing(space.transform(np.concatenate(lists)))
        size = diameter_A or (float(np.median(diameters[key])) if diameters[key] else None)
        if size is None:
            raise UserError(f"{key}: the positions have no diameter; give it with --diameter")
        targets.append(
            Target(key, prototypes_of(embeddings, prototypes), size, origin=f"{sum(map(len, lists))} positions")
        )
    if not targets:
        raise UserError("the coordinates hold no position; give at least one")
    return ReferenceSet(tuple(targets), model_hash, space=space)


def _agreeing(embeddings: np.ndarray) -> np.ndarray:
    if len(embeddings) < 6:
        return embeddings
    centre = np.median(embeddings, axis=0)
    agreement = embeddings @ (centre / np.linalg.norm(centre))
    middle = np.median(agreement)
    spread = 1.4826 * np.median(np.abs(agreement - middle)) + 1e-6
    return embeddings[agreement > middle - _OUTLIER * spread]
