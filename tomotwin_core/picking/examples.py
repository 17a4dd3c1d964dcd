"""Targets out of example embeddings, wherever they come from: positions in embedded tomograms, cut-out subtomograms.

A few examples cannot tell how copies of one molecule scatter, nor how alike other molecules look. Simulated tomograms of
library molecules can: they give the space of comparison, in which copies of one molecule scatter alike in all directions.
Without them the space is that of the tomograms themselves, centred on their mean embedding and whitened by their whole
covariance, and scores are not calibrated.

A position picked by hand is off by a voxel or two, and the embedding there is that of an off-centre particle. So each
example is moved, within one step of the embedding grid and where enough is gained by it, to where it agrees best with the
others.

Which scores right peaks will have the examples tell themselves: each is scored by the mean of the others, and how far right
peaks lie about the mean of these scores is learnt from library molecules, of which as many examples are taken. One example
has no others; then the library's own right scores stand for its. What wrong peaks look like comes from the target's own
peaks in the simulated tomograms, which are of other molecules, moved to where a tomogram's own peaks lie
(`Calibration.floating`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from tomotwin_core.errors import UserError
from tomotwin_core.evaluation import tolerance_A
from tomotwin_core.model import STRIDE
from tomotwin_core.model.network import EMBEDDING_SIZE
from tomotwin_core.picking.discovery import Calibration, fisher_z
from tomotwin_core.picking.location import LocationSettings
from tomotwin_core.picking.references import ReferenceSet, Space, Target, background_prototypes, prototypes_of, unit
from tomotwin_core.picking.simulated import Seen, examples_of, judged_peaks, space_of
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A

# Examples farther than this many deviations from the others' agreement are left out.
_OUTLIER = 2.5
# More examples than this change a prototype, and so the scores of right peaks, no more.
_MANY = 10
_PEAKS_LEFT = 4
# Steps of the embedding grid about an example, (27, 3) z, y, x, itself in the middle; and rounds of moving all of them.
NEIGHBOURHOOD = np.indices((3, 3, 3)).reshape(3, -1).T - 1
_CENTRINGS = 3
# What a move costs, in Fisher's z per squared step: without it all examples may drift off together, and picks with them.
_COST_OF_MOVING = 0.3 * (NEIGHBOURHOOD**2).sum(1)
# A library molecule whose prototype is so close to the target's may be the target: its peaks are not wrong ones.
_LOOKALIKE = 0.9
_EVERYWHERE = LocationSettings(min_score=-1.0, competition=False)


@dataclass(frozen=True)
class Examples:
    """embeddings (n, 32) of one target as the network gave them; diameter_A; origin: where they come from; around (n, k, 32):
    those at the places about each and at itself, where these are known."""

    name: str
    embeddings: np.ndarray
    diameter_A: float
    origin: str = ""
    around: np.ndarray | None = None


def references_from_examples(
    examples: Sequence[Examples],
    model_hash: str,
    everything: np.ndarray | None = None,
    space: Space | None = None,
    strangers: Strangers | None = None,
    prototypes: int = 3,
    seed: int = 0,
) -> ReferenceSet:
    """One target for each of the examples.

    everything : embeddings (m, 32) from all over the tomograms to be picked.  space : that of other targets to compete with.
    strangers : simulated tomograms of molecules that are not these.
    """
    if not examples:
        raise UserError("the coordinates hold no position; give at least one")
    if space is None:
        space = _space(everything, strangers.space if strangers else None)
    targets, levels = [], {}
    for one in examples:
        around = one.embeddings[:, None] if one.around is None else one.around
        places = space.transform(around)
        moved = centred(space.transform(one.embeddings), places)
        kept = agreeing(moved)
        targets.append(Target(one.name, prototypes_of(kept, prototypes), one.diameter_A, origin=one.origin))
        levels[one.name] = level(moved, places)
    background = np.empty((0, EMBEDDING_SIZE), np.float32)
    if everything is not None:
        background = _background(space.transform(everything), targets, seed)
    made = ReferenceSet(tuple(targets), model_hash, space=space, background=background)
    if strangers is None:
        return made
    counts = {one.name: min(len(one.embeddings), _MANY) for one in examples}
    return replace(made, targets=strangers.calibrated(made, counts, levels))


class Strangers:
    """Simulated tomograms of other molecules, and what is learnt from them once for any number of targets."""

    def __init__(self, seen: Sequence[Seen], seed: int = 0) -> None:
        self.seen, self.space, self._seed = seen, space_of(seen), seed
        self._right: dict[tuple[int, bytes], tuple[np.ndarray, float]] = {}

    def calibrated(
        self, references: ReferenceSet, counts: dict[str, int], levels: dict[str, float]
    ) -> tuple[Target, ...]:
        """The targets with calibrated scores; counts: how many examples each was made from; levels: at which Fisher's z
        these agree with each other (`level`)."""
        # Each domain is centred on its own background.
        there = replace(references, space=replace(references.space, centre=self.space.centre))
        crowd = self._crowd_prototypes(there.space)
        own = [judged_peaks(there, s, _EVERYWHERE) for s in self.seen]
        targets = []
        for index, target in enumerate(references.targets):
            alike = {name for name, p in crowd.items() if float((target.prototypes @ p).max()) > _LOOKALIKE}
            wrong = []
            for s, peaks in zip(self.seen, own, strict=True):
                scores, _, xyz = peaks[index]
                wrong.append(scores[~_near(xyz, s, alike, tolerance_A(target.diameter_A) / MODEL_VOXEL_SIZE_A)])
            about, prevalence = self._right_scores(there, counts[target.name])
            right = np.tanh(about + levels[target.name])
            both = np.concatenate([right, *wrong])
            calibration = Calibration.fitted(both, np.arange(len(both)) < len(right))
            if calibration:
                calibration = replace(calibration, prevalence=prevalence, floating=True)
            targets.append(replace(target, calibration=calibration))
        return tuple(targets)

    def _crowd_prototypes(self, space: Space) -> dict[str, np.ndarray]:
        embeddings, label = examples_of(self.seen)
        moved = space.transform(embeddings)
        return {str(name): prototypes_of(moved[label == name], 1)[0] for name in np.unique(label)}

    def _right_scores(self, references: ReferenceSet, number: int) -> tuple[np.ndarray, float]:
        """Fisher's z of right peaks of library molecules, less the level of the `number` examples of it that each was found
        by (which do not count), and which share of all peaks was right."""
        key = number, references.space.matrix.tobytes()
        if key not in self._right:
            self._right[key] = _right_scores(references, number, self.seen, self._seed)
        return self._right[key]


def _right_scores(references: ReferenceSet, number: int, seen: Sequence[Seen], seed: int) -> tuple[np.ndarray, float]:
    rng = np.random.default_rng(seed)
    label = np.concatenate([s.label for s in seen])
    around = references.space.transform(np.concatenate([_around_truth(s) for s in seen]))
    itself = around.shape[1] // 2
    targets, chosen, levels = [], {}, {}
    for name in map(str, np.unique(label)):
        members = np.flatnonzero(label == name)
        if len(members) >= number + _PEAKS_LEFT:
            chosen[name] = rng.choice(members, number, replace=False)
            places = around[chosen[name]]
            moved = centred(places[:, itself], places)
            levels[name] = level(moved, places)
            targets.append(Target(name, prototypes_of(moved, 3), _diameter(seen, name)))
    if not targets:
        return np.empty(0), 0.0
    library = replace(references, targets=tuple(targets))
    scores, n_peaks, first = [], 0, 0
    for s in seen:
        for target, (score, right, xyz) in zip(targets, judged_peaks(library, s, _EVERYWHERE), strict=True):
            own = chosen[target.name] - first
            used = s.tomogram.truth.xyz[own[(own >= 0) & (own < len(s.label))]]
            fresh = np.ones(len(xyz), bool)
            if len(used) and len(xyz):
                fresh = cKDTree(used).query(xyz)[0] > tolerance_A(target.diameter_A) / MODEL_VOXEL_SIZE_A
            scores.append(fisher_z(score[right & fresh]) - levels[target.name])
            n_peaks += int(fresh.sum())
        first += len(s.label)
    pooled = np.concatenate(scores)
    return pooled, len(pooled) / max(n_peaks, 1)


def _around_truth(seen: Seen) -> np.ndarray:
    """Embeddings (n, 27, 32) at the true centres' grid places and their neighbours."""
    grid = np.array(seen.field.shape[:3])
    index = np.round(seen.tomogram.truth.xyz[:, ::-1] / STRIDE).astype(int)
    places = np.clip(index[:, None] + NEIGHBOURHOOD, 0, grid - 1)
    return np.asarray(seen.field[tuple(np.moveaxis(places, -1, 0))])


def centred(itself: np.ndarray, places: np.ndarray, cost: np.ndarray = _COST_OF_MOVING) -> np.ndarray:
    """Of each example the unit vector at that of its places that agrees best with the other examples, (n, 32).

    itself (n, 32), places (n, k, 32) : unit vectors at the positions as they were given, and at the places about them;
    cost (k,) : what being there costs.  A single place is taken as it is.
    """
    if len(itself) < 2 or places.shape[1] == 1:
        return itself
    moved = itself
    for _ in range(_CENTRINGS):
        best = (fisher_z(np.einsum("nkd,nd->nk", places, _means_of_others(moved))) - cost).argmax(1)
        moved = places[np.arange(len(places)), best]
    return moved


def level(moved: np.ndarray, places: np.ndarray) -> float:
    """Mean Fisher's z of the scores that examples have with the mean of the others, each at its best place as a peak
    would be; 0 for a single one, which has no others."""
    if len(moved) < 2:
        return 0.0
    return float(fisher_z(np.einsum("nkd,nd->nk", places, _means_of_others(moved)).max(1)).mean())


def _means_of_others(vectors: np.ndarray) -> np.ndarray:
    return unit(vectors.sum(0) - vectors)


def agreeing(embeddings: np.ndarray) -> np.ndarray:
    """Those of example unit vectors (n, 32) that agree with the rest; all, where they are fewer than six."""
    if len(embeddings) < 6:
        return embeddings
    centre = np.median(embeddings, axis=0)
    agreement = embeddings @ (centre / np.linalg.norm(centre))
    middle = np.median(agreement)
    spread = 1.4826 * np.median(np.abs(agreement - middle)) + 1e-6
    return np.asarray(embeddings[agreement > middle - _OUTLIER * spread])


def _space(everything: np.ndarray | None, simulated: Space | None) -> Space:
    if everything is None:
        return simulated or Space.plain()
    if simulated is not None:
        return replace(simulated, centre=everything.mean(0).astype(np.float32))
    return Space.fitted(everything, np.zeros(len(everything), int), everything)


def _background(embeddings: np.ndarray, targets: Sequence[Target], seed: int) -> np.ndarray:
    """Prototypes of what a tomogram is full of: of the half of its places that look least like the targets."""
    likeness = (embeddings @ np.concatenate([t.prototypes for t in targets]).T).max(1)
    return background_prototypes(embeddings[likeness <= np.median(likeness)], seed)


def _near(xyz: np.ndarray, seen: Seen, names: set[str], distance: float) -> np.ndarray:
    """Which positions lie near a true centre of one of these molecules."""
    truth = seen.tomogram.truth
    centres = truth.xyz[np.isin(truth.label, list(names))]
    if not len(centres) or not len(xyz):
        return np.zeros(len(xyz), bool)
    return np.asarray(cKDTree(centres).query(xyz)[0] <= distance)


def _diameter(seen: Sequence[Seen], name: str) -> float:
    known = np.concatenate([s.tomogram.truth.diameter_A[s.tomogram.truth.label == name] for s in seen])
    return float(np.median(known))
