"""A reference that takes in its own confident picks: what it is sure of in the tomograms becomes examples of it.

Few examples make a prototype that leans towards these few copies. The picks that are almost surely right by their
calibrated scores are more copies for nothing; the prototype moves to the mean of the old one and of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.picking.examples import agreeing
from tomotwin_core.picking.location import LocationSettings, locate
from tomotwin_core.picking.references import ReferenceSet

# Picks whose score promises less than this share of false ones are taken in, the best of them, at most so many.
_RATE, _MOST, _FEWEST = 0.1, 50, 3
# The old prototype speaks with the voice of so many picks.
_OLD = 3.0


def self_taught(references: ReferenceSet, fields: Sequence[EmbeddingField], rounds: int = 1) -> ReferenceSet:
    """The references with every target that has calibrated scores and confident picks in these tomograms moved towards
    those; the others as they were."""
    for _ in range(rounds):
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for field in fields:
            peaks = locate(field, references, LocationSettings())
            assert peaks.fdr is not None
            sure = peaks.select(peaks.fdr <= _RATE)
            for label, own in sure.by_label().items():
                best = own.select(np.argsort(-own.score)[:_MOST])
                found.setdefault(label, []).append((references.space.transform(field.at(best.xyz)), best.score))
        targets = []
        for target in references.targets:
            parts = found.get(target.name, [])
            embeddings = np.concatenate([e for e, _ in parts]) if parts else np.empty((0, 1))
            if len(embeddings) < _FEWEST:
                targets.append(target)
                continue
            score = np.concatenate([s for _, s in parts])
            embeddings = agreeing(embeddings[np.argsort(-score)[:_MOST]])
            nearest = (embeddings @ target.prototypes.T).argmax(1)
            moved = np.stack(
                [_OLD * p + embeddings[nearest == k].sum(0) for k, p in enumerate(target.prototypes)]
            ).astype(np.float32)
            moved /= np.linalg.norm(moved, axis=1, keepdims=True)
            targets.append(replace(target, prototypes=moved))
        references = replace(references, targets=tuple(targets))
    return references
