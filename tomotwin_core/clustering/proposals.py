"""Proposals: groups of candidates with what a biologist needs to judge them, the best first.

A proposal is a species, or one of the kinds of junk, or unsure. The surest come first; where no library tells what molecules look
like, those that are most of a cluster: the number of members times their compactness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tomotwin_core.clustering.atlas import Atlas
from tomotwin_core.clustering.kinds import Kind, Signs, certainty, kind_of
from tomotwin_core.clustering.parts import likeness, sizes_A
from tomotwin_core.clustering.scene import Scene
from tomotwin_core.picking.references import unit

NONE = "none"
_MEDOIDS, _NEAREST = 3, 3
# Below this likeness to any molecule of the library a group is no species: clusters of gold beads reach 0.47.
_LEAST_LIKENESS = 0.5
# Above this one it is one, though some members look like junk (hollow capsids do like vesicles).
_SURE_LIKENESS = 0.8
_ORDER = ("species", "unsure", "part", "membrane", "filament", "gold", "ice", "edge")


@dataclass(frozen=True)
class Alike:
    """A molecule of the library and how alike it looks, a cosine."""

    name: str
    score: float


@dataclass(frozen=True)
class Proposal:
    """A group. members, medoids: candidates' numbers.  certainty: that its members are whole molecules, 0 to 1, None where no library
    tells.  compactness: mean cosine of members to the others' middle.  average, gallery: files in the run's folder, if made."""

    name: str
    kind: Kind
    why: str
    certainty: float | None
    count: int
    count_by_tomogram: dict[str, int]
    density_per_um3: float
    compactness: float
    diameter_A: float
    nearest: tuple[Alike, ...]
    members: tuple[int, ...]
    medoids: tuple[int, ...]
    average: str | None = None
    gallery: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "members": list(self.members), "medoids": list(self.medoids)}


def proposals_of(
    scene: Scene, label: np.ndarray, atlas: Atlas | None, found: Signs, names: Sequence[str] | None = None
) -> list[Proposal]:
    """Groups of a scene as proposals, the best first.

    label (n,): group of each candidate, -1 for none.  names: of the groups, in the order of their numbers; without them
    they are called cluster_01 and so on in the order of their rank.
    """
    made = []
    for k in range(int(label.max(initial=-1)) + 1):
        members = np.flatnonzero(label == k)
        if len(members):
            made.append(_proposal(scene, members, atlas, found, names[k] if names else ""))
    made.sort(key=_rank)
    if names:
        return made
    width = max(len(str(len(made))), 2)
    return [replace(p, name=f"cluster_{i:0{width}d}") for i, p in enumerate(made, 1)]


def _rank(p: Proposal) -> tuple[int, float, float]:
    return _ORDER.index(p.kind), -(p.certainty or 0.0), -p.count * max(p.compactness, 0.0)


def _proposal(scene: Scene, members: np.ndarray, atlas: Atlas | None, found: Signs, name: str) -> Proposal:
    kind, why, near = judged(scene, members, atlas, found)
    units = unit(scene.vectors_of(members))
    others = unit(units.sum(0) - units)
    closeness = (units * others).sum(1) if len(units) > 1 else np.ones(1)
    counts = Counter(scene.tomograms[t].name for t in scene.candidates.tomogram[members])
    volume = scene.volume_um3[np.unique(scene.candidates.tomogram)].sum()
    best = members[np.argsort(-closeness, kind="stable")]
    sure = certainty(found, members)
    return Proposal(
        name,
        kind,
        why,
        round(sure, 3) if np.isfinite(sure) else None,
        len(members),
        dict(sorted(counts.items())),
        round(len(members) / float(volume), 2),
        round(float(closeness.mean()), 4),
        round(_diameter(scene, members, atlas), 1),
        tuple(near),
        tuple(int(i) for i in scene.ids[best]),
        tuple(int(i) for i in scene.ids[best[:_MEDOIDS]]),
    )


def judged(scene: Scene, members: np.ndarray, atlas: Atlas | None, found: Signs) -> tuple[Kind, str, list[Alike]]:
    """The kind of a group of rows, why in a sentence, and the molecules that it looks most alike."""
    kind, why = kind_of(scene, found, members)
    near = alike(scene, members, atlas)
    if kind == "species" and near and near[0].score < _LEAST_LIKENESS:
        kind, why = "unsure", f"its members are alike, but like no molecule of the library (at best {near[0].score:.2f})"
    if kind == "unsure" and near and near[0].score > _SURE_LIKENESS:
        kind, why = "species", f"its middle looks like {near[0].name} of the library ({near[0].score:.2f})"
    return kind, why, near


def alike(scene: Scene, members: np.ndarray, atlas: Atlas | None, count: int = _NEAREST) -> list[Alike]:
    """The molecules of the library that the middle of these rows looks most alike."""
    if atlas is None:
        return []
    names, cosines = likeness(scene.vectors_of(members).mean(0, keepdims=True), scene, atlas)
    return [Alike(names[i], round(float(cosines[0, i]), 4)) for i in np.argsort(-cosines[0])[:count]]


def _diameter(scene: Scene, members: np.ndarray, atlas: Atlas | None) -> float:
    """In A: the mean of the molecules that look most alike; without an atlas how far salience reaches about the members."""
    if atlas is None:
        return float(np.clip(np.median(scene.candidates.diameter_A[members]), 60.0, 340.0))
    return float(sizes_A(*likeness(scene.vectors_of(members).mean(0, keepdims=True), scene, atlas))[0])


def verdict(scene: Scene, proposals: Sequence[Proposal]) -> str:
    """What was found, or why nothing was, in words."""
    where = f"{len(scene.tomograms)} tomogram" + ("s" if len(scene.tomograms) != 1 else "")
    if not len(scene):
        return f"Nothing stands out of the background of {where}: it looks empty."
    if not proposals:
        return f"{len(scene)} places of {where} stand out, but no group of them is alike: no species is proposed."
    kinds = Counter(p.kind for p in proposals)
    beside = ", ".join(f"{n} of {_WORDS[kind]}" for kind, n in kinds.items() if kind != "species")
    beside = f"; set apart: {beside}" if beside else ""
    if not kinds["species"]:
        return f"No species is proposed in {where}{beside}."
    taken = sum(p.count for p in proposals if p.kind == "species")
    return f"{kinds['species']} species proposed, with {taken} of {len(scene)} candidates of {where}{beside}."


_WORDS = {
    "membrane": "membrane",
    "gold": "gold or other dark blobs",
    "filament": "filaments",
    "ice": "empty ice",
    "part": "parts of larger particles",
    "edge": "the faces",
    "unsure": "uncertain things",
}
