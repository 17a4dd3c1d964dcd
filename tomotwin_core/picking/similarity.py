"""Similarity to targets, layer by layer along z, out of a stored embedding or straight out of the network.

A layer holds the planes of one row of tiles (or of one row of chunks on disk); what lies in memory is one layer of
similarities, 4 bytes per target and place, and one tile or chunk of embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.embedding.live import LiveField
from tomotwin_core.errors import UserError
from tomotwin_core.picking.references import ReferenceSet
from tomotwin_core.progress import progress

Field = EmbeddingField | LiveField
# Planes of a stored embedding are taken in parts of about so many places.
_PLACES = 1 << 18
# Of similarities in a layer of a stored embedding.
_LAYER_BYTES = 1 << 29


def similarity_layers(
    field: Field, references: ReferenceSet, planes: int | None = None, background: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (z0, similarity float32 [target, z, y, x]) for consecutive layers of planes of the embedding grid.

    planes : of a layer; only a stored embedding can be cut as one likes.  background : one more, last, for the background.
    UserError where the references hold no target, or are for embeddings of another size.
    """
    _require_fitting(field, references)
    if isinstance(field, LiveField):
        yield from _live_layers(field, references, background)
        return
    _, height, width = field.shape
    count = _count(references, background)
    if planes is None:  # those of a chunk, or fewer where there are many targets
        chunk = next(field.slabs())
        planes = max(min(chunk[1] - chunk[0], _LAYER_BYTES // (4 * count * width * height)), 1)
    for z0, z1, _, _ in progress(list(field.slabs(planes)), desc=f"comparing {field.tomogram}", unit="slabs"):
        layer = np.empty((count, z1 - z0, height, width), np.float32)
        embeddings = field.embeddings(z0, z1)
        rows = max(_PLACES // (width * (z1 - z0)), 1)
        for y in range(0, height, rows):
            layer[:, :, y : y + rows] = np.moveaxis(
                references.similarity(embeddings[:, y : y + rows], background), -1, 0
            )
        yield z0, layer


def _require_fitting(field: Field, references: ReferenceSet) -> None:
    if not references.targets:
        raise UserError(
            f"{field.tomogram}: the references hold no target (a clustering that found no species writes such); give others"
        )
    size = len(references.space.centre)
    if isinstance(field, EmbeddingField) and field.size != size:
        raise UserError(
            f"{field.path}: its embeddings are of {field.size} numbers each and the references for {size}; make both with one model"
        )


def _live_layers(field: LiveField, references: ReferenceSet, background: bool) -> Iterator[tuple[int, np.ndarray]]:
    count = _count(references, background)
    layer, z0 = np.empty(0, np.float32), -1
    tiles = progress(field.tiles(), total=field.n_tiles, desc=f"searching {field.tomogram}", unit="tiles")
    for (z, y, x), embeddings, _ in tiles:
        if z.start != z0:
            if z0 >= 0:
                yield z0, layer
            layer, z0 = np.empty((count, z.stop - z.start, *field.shape[1:]), np.float32), z.start
        layer[:, :, y, x] = np.moveaxis(references.similarity(embeddings, background), -1, 0)
    yield z0, layer


def _count(references: ReferenceSet, background: bool) -> int:
    return len(references.targets) + (background and len(references.background) > 0)
