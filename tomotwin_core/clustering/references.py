"""Species as references: what `tomotwin locate` and `tomotwin pick` take to find every copy.

Prototypes are the middles of a cluster's members (several, as of any other examples), compared in the scene's space. The
threshold is proposed from the candidates themselves: the highest score at which what scores at least as much and the members of the
cluster agree nearly as well (F1) as at any. Another cluster's members count as wrong there, which is what makes clusters compete.
The highest, because a tomogram has more places than candidates, so that more is wrong at any score than candidates tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tomotwin_core.clustering.proposals import Proposal
from tomotwin_core.clustering.scene import Scene
from tomotwin_core.picking.examples import Examples, references_from_examples
from tomotwin_core.picking.references import ReferenceSet

_CHUNK = 4096
# Nearly: within so much of the best F1 (chosen on simulated tomograms of molecules trained on).
_NEARLY = 0.03


def references_of(scene: Scene, proposals: Sequence[Proposal]) -> ReferenceSet:
    """One target for each proposal."""
    if not proposals:
        return ReferenceSet((), scene.model_hash, space=scene.space)
    rows = {p.name: scene.rows(p.members) for p in proposals}
    examples = [
        Examples(p.name, scene.candidates.embedding[rows[p.name]], p.diameter_A, f"cluster of {p.count}") for p in proposals
    ]
    made = references_from_examples(examples, scene.model_hash, scene.everything, scene.space, seed=scene.seed)
    best, score = np.empty(len(scene), int), np.empty(len(scene), np.float32)
    for low in range(0, len(scene), _CHUNK):
        part = slice(low, low + _CHUNK)
        scores = made.similarity(scene.candidates.embedding[part])
        best[part], score[part] = scores.argmax(1), scores.max(1)
    targets = []
    for index, target in enumerate(made.targets):
        member = np.zeros(len(scene), bool)
        member[rows[target.name]] = True
        own = best == index
        targets.append(replace(target, threshold=_threshold(score[own], member[own], int(member.sum()))))
    return replace(made, targets=tuple(targets), made_by={"clusters": [p.name for p in proposals]})


def _threshold(scores: np.ndarray, member: np.ndarray, count: int) -> float:
    """The highest score of nearly the best F1 against the members, half-way to the next lower one."""
    if not member.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(member[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + count)
    chosen = int(np.argmax(f1 >= f1.max() - _NEARLY))
    following = scores[order][min(chosen + 1, len(order) - 1)]
    return float((scores[order][chosen] + following) / 2)
