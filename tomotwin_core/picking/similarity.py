"""Similarity to targets, layer by layer along z, out of a stored embedding or straight out of the network.

A layer holds the planes of one row of tiles (or of one row of chunks on disk). What lies in memory of it is 4 bytes per place
and target, or, where there are more targets than an embedding has numbers, per place and number: then the similarities to
all targets are there for a strip of its rows at a time, so that memory does not grow with targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.embedding.live import LiveField
from tomotwin_core.errors import UserError
from tomotwin_core.picking.references import ReferenceSet
from tomotwin_core.progress import progress

Field = EmbeddingField | LiveField
# Planes of a stored embedding are taken in parts of about so many places.
_PLACES = 1 << 18
# Of a layer of a stored embedding.
_LAYER_BYTES = 1 << 29
# Of the similarities of a strip of a layer.
STRIP_BYTES = 1 << 28

Layers = Iterator[tuple[int, np.ndarray]]
# Makes similarities [target, ...] of numbers [number, ...].
Compare = Callable[[np.ndarray], np.ndarray]


def layers_to_compare(
    field: Field, references: ReferenceSet, planes: int | None = None, background: bool = False
) -> tuple[Layers, Compare | None]:
    """Consecutive layers (z0, float32 [number, z, y, x]) of planes of the embedding grid, and what makes similarities [target, z,
    y, x] of a part of one: None where its numbers are similarities already.

    planes : of a layer; only a stored embedding can be cut as one likes.  background : one more, last, for the background.
    UserError where the references hold no target, or are for embeddings of another size.
    """
    _require_fitting(field, references)
    size, count = len(references.space.centre), _count(references, background)

    def similarity(embeddings: np.ndarray) -> np.ndarray:
        return _in_parts(references, embeddings, background)

    def compare(numbers: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.moveaxis(similarity(np.moveaxis(numbers, 0, -1)), -1, 0))

    held, made = (size, None) if count > size else (count, similarity)
    layers = _live_layers(field, held, made) if isinstance(field, LiveField) else _stored_layers(field, held, made, planes)
    return layers, compare if count > size else None


def strips(
    layer: np.ndarray, compare: Compare | None, count: int, reach: int = 0
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Parts of a layer [number, z, y, x] of so many targets: (y0, y1, low, similarity [target, z, y, x]). Its row 0 is row `low` of
    the layer; it holds rows y0 to y1, and `reach` more on both sides where the layer has them."""
    _, depth, height, width = layer.shape
    rows = height if compare is None else max(STRIP_BYTES // (4 * count * depth * width) - 2 * reach, 1)
    for y0 in range(0, height, rows):
        y1, low = min(y0 + rows, height), max(y0 - reach, 0)
        part = layer[:, :, low : y1 + reach]
        yield y0, y1, low, part if compare is None else compare(part)


def _stored_layers(field: EmbeddingField, count: int, similarity: Compare | None, planes: int | None) -> Layers:
    _, height, width = field.shape
    if planes is None:  # those of a chunk, or fewer where there are many targets
        chunk = next(field.slabs())
        planes = max(min(chunk[1] - chunk[0], _LAYER_BYTES // (4 * count * width * height)), 1)
    for z0, z1, _, _ in progress(list(field.slabs(planes)), desc=f"comparing {field.tomogram}", unit="slabs"):
        embeddings = field.embeddings(z0, z1)
        if similarity is None:
            yield z0, np.moveaxis(embeddings, -1, 0)
            continue
        layer = np.empty((count, z1 - z0, height, width), np.float32)
        rows = max(_PLACES // (width * (z1 - z0)), 1)
        for y in range(0, height, rows):
            layer[:, :, y : y + rows] = np.moveaxis(similarity(embeddings[:, y : y + rows]), -1, 0)
        yield z0, layer


def _in_parts(references: ReferenceSet, embeddings: np.ndarray, background: bool) -> np.ndarray:
    """`ReferenceSet.similarity` of so many places at a time that their cosines with all prototypes stay within bounds."""
    prototypes = sum(len(t.prototypes) for t in references.targets) + background * len(references.background)
    places = max(STRIP_BYTES // (4 * prototypes), 1)
    flat = embeddings.reshape(-1, embeddings.shape[-1])
    if len(flat) <= places:
        return references.similarity(embeddings, background)
    parts = [references.similarity(flat[i : i + places], background) for i in range(0, len(flat), places)]
    return np.concatenate(parts).reshape(*embeddings.shape[:-1], -1)


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


def _live_layers(field: LiveField, count: int, similarity: Compare | None) -> Layers:
    layer, z0 = np.empty(0, np.float32), -1
    tiles = progress(field.tiles(), total=field.n_tiles, desc=f"searching {field.tomogram}", unit="tiles")
    for (z, y, x), embeddings, _ in tiles:
        if z.start != z0:
            if z0 >= 0:
                yield z0, layer
            layer, z0 = np.empty((count, z.stop - z.start, *field.shape[1:]), np.float32), z.start
        layer[:, :, y, x] = np.moveaxis(embeddings if similarity is None else similarity(embeddings), -1, 0)
    yield z0, layer


def _count(references: ReferenceSet, background: bool) -> int:
    return len(references.targets) + (background and len(references.background) > 0)
