"""Proposals: groups of candidates with what a biologist needs to judge them, the best first.

A proposal is a species, or one of the kinds of junk, or unsure. Species are ranked by how much of a cluster they are: the
number of members times their compactness. Groups that lie beside the members of a larger one at a constant short distance
are not species but other places of the same particle, and join it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from tomotwin_core.clustering.atlas import Atlas
from tomotwin_core.clustering.kinds import Kind, Signs, kind_of
from tomotwin_core.clustering.scene import Scene
from tomotwin_core.structures.library import load_library

NONE = "none"
_MEDOIDS, _NEAREST = 3, 3
# For the size: the library's molecules that look most alike, the nearer the more.
_SIZE_NEIGHBOURS, _SIZE_SHARPNESS = 8, 12.0
# A group is beside another where so many of its members have one of the other's within that share of its diameter.
_BESIDE_SHARE, _BESIDE_DIAMETER = 0.6, 0.6
# Below this likeness to any molecule of the library a group is no species: clusters of gold beads reach 0.47.
_LEAST_LIKENESS = 0.5
_ORDER = ("species", "unsure", "membrane", "gold", "ice", "edge")


@dataclass(frozen=True)
class Alike:
    """A molecule of the library and how alike it looks, a cosine."""

    name: str
    score: float


@dataclass(frozen=True)
class Proposal:
    """A group. members, medoids: candidates' numbers.  compactness: mean cosine of members to the others' middle.
    average, gallery: files in the run's folder, if made."""

    name: str
    kind: Kind
    why: str
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
    made.sort(key=lambda p: (_ORDER.index(p.kind), -p.count * max(p.compactness, 0.0)))
    if names:
        return made
    width = max(len(str(len(made))), 2)
    return [replace(p, name=f"cluster_{i:0{width}d}") for i, p in enumerate(made, 1)]


def without_satellites(scene: Scene, label: np.ndarray, atlas: Atlas | None) -> np.ndarray:
    """The groups less those that are other places of the same particles as another group: their members count as none."""
    label = label.copy()
    groups = [np.flatnonzero(label == k) for k in range(int(label.max(initial=-1)) + 1)]
    size = [_diameter(scene, g, atlas) if len(g) else 0.0 for g in groups]
    for k, own in enumerate(groups):
        for other, theirs in enumerate(groups):
            if other == k or not len(own) or not len(theirs) or size[other] <= size[k] or (label[theirs] < 0).all():
                continue
            reach = _BESIDE_DIAMETER * size[other]
            if _share_beside(scene, own, theirs, reach) > _BESIDE_SHARE:
                label[own] = -1
                break
    _, order = np.unique(label[label >= 0], return_inverse=True)
    label[label >= 0] = order
    return label


def _share_beside(scene: Scene, own: np.ndarray, theirs: np.ndarray, reach_A: float) -> float:
    tomogram, xyz = scene.candidates.tomogram, scene.candidates.xyz_A
    hit = np.zeros(len(own), bool)
    for t in np.unique(tomogram[own]):
        there = theirs[tomogram[theirs] == t]
        if len(there):
            here = tomogram[own] == t
            hit[here] = cKDTree(xyz[there]).query(xyz[own[here]])[0] < reach_A
    return float(hit.mean())


def _proposal(scene: Scene, members: np.ndarray, atlas: Atlas | None, found: Signs, name: str) -> Proposal:
    kind, why = kind_of(scene, found, members)
    near = alike(scene, members, atlas)
    if kind == "species" and near and near[0].score < _LEAST_LIKENESS:
        kind, why = "unsure", f"its members are alike, but like no molecule of the library (at best {near[0].score:.2f})"
    units = scene.vectors[members]
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-9)
    middle = units.sum(0)
    others = middle - units
    others /= np.maximum(np.linalg.norm(others, axis=1, keepdims=True), 1e-9)
    closeness = (units * others).sum(1) if len(units) > 1 else np.ones(1)
    counts = Counter(scene.tomograms[t].name for t in scene.candidates.tomogram[members])
    volume = scene.volume_um3[np.unique(scene.candidates.tomogram)].sum()
    best = members[np.argsort(-closeness, kind="stable")]
    return Proposal(
        name,
        kind,
        why,
        len(members),
        dict(sorted(counts.items())),
        round(len(members) / float(volume), 2),
        round(float(closeness.mean()), 4),
        round(_diameter(scene, members, atlas), 1),
        tuple(near),
        tuple(int(i) for i in scene.ids[best]),
        tuple(int(i) for i in scene.ids[best[:_MEDOIDS]]),
    )


def alike(scene: Scene, members: np.ndarray, atlas: Atlas | None, count: int = _NEAREST) -> list[Alike]:
    """The molecules of the library that the middle of these rows looks most alike."""
    if atlas is None:
        return []
    names, middles = atlas.molecules
    middles = middles - scene.origin
    middle = scene.vectors[members].mean(0)
    length = np.linalg.norm(middles, axis=1) * max(float(np.linalg.norm(middle)), 1e-9)
    cosine = middles @ middle / np.maximum(length, 1e-9)
    return [Alike(names[i], round(float(cosine[i]), 4)) for i in np.argsort(-cosine)[:count]]


def _diameter(scene: Scene, members: np.ndarray, atlas: Atlas | None) -> float:
    """In A: the mean of the molecules that look most alike; without an atlas how far salience reaches about the members."""
    if atlas is None:
        return float(np.clip(np.median(scene.candidates.diameter_A[members]), 60.0, 340.0))
    entries = load_library().entries
    near = alike(scene, members, atlas, _SIZE_NEIGHBOURS)
    weight = np.exp(_SIZE_SHARPNESS * np.array([n.score for n in near]))
    sizes = np.array([entries[n.name].diameter_A for n in near])
    return float((weight * sizes).sum() / weight.sum())


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


_WORDS = {"membrane": "membrane", "gold": "gold or other dark blobs", "ice": "empty ice", "edge": "the faces", "unsure": "uncertain things"}
