"""What is no species: membranes, gold, filaments, ice, parts of larger particles and edges, so that no one has to pick them.

Three things tell, each by itself: what a group's members look like (the nearest examples of the atlas: membrane, gold, filament,
places between particles or off their centres, or molecules), where they lie (in sheets; in lines as long as filaments are; at the
tomogram's faces; inside of larger particles), and, where the tomogram itself is at hand, how dark they are (the dark blobs of `regions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from tomotwin_core.clustering.atlas import JUNK, Atlas
from tomotwin_core.clustering.parts import share_inside, wholes
from tomotwin_core.clustering.scene import Scene
from tomotwin_core.picking.references import unit
from tomotwin_core.regions import RegionSettings, find_region
from tomotwin_core.tomogram import open_tomogram

Kind = Literal["species", "membrane", "gold", "filament", "ice", "part", "edge", "unsure"]

_NEAREST = 15
_PART, _FILAMENT = JUNK.index("part"), JUNK.index("filament")
# A kind is said where it speaks for more than this share of a group.
_MAJORITY = 0.5
# A species is proposed where molecules speak for more than this: what stands out by chance in noise reaches 0.52.
_MOLECULES = 0.6
# Parts of larger particles are said where so many members lie inside of one or look as if they did.
_PARTS = 0.4
_EDGE_A = 60.0
# A filament is a line of places that look like one, no farther apart than this, that reaches so far: in simulated tomograms nearly all
# places on filaments do, and hardly anything that merely looks like them.
_LINE_STEP_A, _LINE_A = 160.0, 600.0
# Neighbours within this distance make a sheet where there are so many and their smallest extent is so small beside the next.
_SHEET_A, _SHEET_FEWEST, _SHEET_FLATNESS = 160.0, 5, 0.25


@dataclass(frozen=True)
class Signs:
    """Of each candidate. looks (n, 6): shares of `JUNK` and of molecules among the examples that it resembles, NaN without an
    atlas.  whole (n,): the row that it lies inside of, or -1.  edge (n,): 1 at a face.  dark (n,): 1 in a dark blob of the
    tomogram, NaN where that is not known."""

    looks: np.ndarray
    whole: np.ndarray
    edge: np.ndarray
    dark: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Signs], rows: Sequence[np.ndarray]) -> Signs:
        """Of a scene out of those of its parts, and the rows (m,) that each of these is in it."""
        moved = [replace(part, whole=np.where(part.whole >= 0, own[part.whole], -1)) for part, own in zip(parts, rows, strict=True)]
        order = np.argsort(np.concatenate(rows))
        return cls(*(np.concatenate([getattr(part, column.name) for part in moved])[order] for column in fields(cls)))


def signs(scene: Scene, atlas: Atlas | None) -> Signs:
    """What can be told of each candidate by itself."""
    looks = _looks(scene, atlas)
    return Signs(looks, wholes(scene, atlas, looks[:, -1]), _at_edge(scene), _dark(scene))


def kind_of(scene: Scene, signs: Signs, members: np.ndarray) -> tuple[Kind, str]:
    """The kind of a group of rows, and why in a sentence."""
    dark = signs.dark[members]
    if np.isfinite(dark).any() and float(np.nanmean(dark)) > _MAJORITY:
        return "gold", f"{np.nanmean(dark):.0%} of its members lie in blobs far darker than anything else in the tomogram"
    edge = float(signs.edge[members].mean())
    if edge > _MAJORITY:
        return "edge", f"{edge:.0%} of its members lie at a face of the tomogram"
    looks = signs.looks[members].mean(0)
    sheet = sheet_share(scene, members)
    inside = share_inside(signs.whole, members)
    parts = inside + (1 - inside) * looks[_PART]
    other = int(looks[:_PART].argmax())  # parts are the last kind
    if looks[other] > _MAJORITY or looks[other] > parts > _PARTS:
        name = JUNK[other]
        return cast(Kind, name), f"{looks[other]:.0%} of the examples that its members resemble are {_WORDS[name]}"
    if parts > _PARTS:
        return "part", (
            f"{inside:.0%} of its members lie inside of larger particles, and {looks[_PART]:.0%} of the examples that they "
            "resemble are such places"
        )
    if sheet > _MAJORITY and looks[0] > looks[-1] / 2:
        return "membrane", f"{sheet:.0%} of its members lie in sheets, and many resemble membranes"
    if np.isnan(looks).any():
        if sheet > _MAJORITY:
            return "membrane", f"{sheet:.0%} of its members lie in sheets"
        return "species", "its members are alike and unlike everything else"
    if looks[-1] > _MOLECULES:
        return "species", f"{looks[-1]:.0%} of the examples that its members resemble are molecules"
    return "unsure", "its members resemble " + " and ".join(
        f"{_WORDS[name]} ({looks[i]:.0%})" for i, name in enumerate((*JUNK, "molecule")) if looks[i] > 0.2
    )


_WORDS = {
    "membrane": "membranes",
    "gold": "gold beads",
    "filament": "filaments",
    "ice": "places between particles",
    "part": "parts of larger particles",
    "molecule": "molecules",
}


def certainty(signs: Signs, members: np.ndarray) -> float:
    """How surely a group of rows is one of whole molecules, 0 to 1: the share of molecules among the examples that its members
    resemble, times the share of members that lie inside of nothing larger; NaN without an atlas."""
    return float(signs.looks[members, -1].mean() * (signs.whole[members] < 0).mean())


def sheet_share(scene: Scene, members: np.ndarray) -> float:
    """The share of members whose neighbours among the members lie in a sheet."""
    flat = np.zeros(len(members), bool)
    for t in np.unique(scene.candidates.tomogram[members]):
        own = np.flatnonzero(scene.candidates.tomogram[members] == t)
        xyz = scene.candidates.xyz_A[members[own]]
        for i, near in zip(own, cKDTree(xyz).query_ball_point(xyz, _SHEET_A), strict=True):
            if len(near) > _SHEET_FEWEST:
                values = np.linalg.eigvalsh(np.cov(xyz[near].T))
                flat[i] = values[0] < _SHEET_FLATNESS * values[1]
    return float(flat.mean())


def _looks(scene: Scene, atlas: Atlas | None) -> np.ndarray:
    """Shares among the nearest examples of the atlas, every kind of example counting as if there were equally many.

    The nearest by direction: how long vectors are depends on how clear a tomogram is.  Examples of filaments count only beside what
    is as long as one.
    """
    if atlas is None or not len(scene):
        return np.full((len(scene), len(JUNK) + 1), np.nan)
    looks = _shares(scene.vectors, scene, atlas, np.ones(len(atlas.label), bool))
    away = (looks[:, _FILAMENT] > 0) & ~_beside_lines(scene, looks[:, _FILAMENT] > _MAJORITY)
    looks[away] = _shares(scene.vectors_of(away), scene, atlas, atlas.label != _FILAMENT)
    return looks


def _shares(vectors: np.ndarray, scene: Scene, atlas: Atlas, counting: np.ndarray) -> np.ndarray:
    """Of `JUNK` and of molecules (n, 6) among the examples that count (a mask) and that vectors (n, d) of the frame are nearest to."""
    kind = np.minimum(atlas.label[counting], len(JUNK))
    weight = 1.0 / np.maximum(np.bincount(kind, minlength=len(JUNK) + 1), 1)
    # Molecules are many kinds: as many as the others together.
    weight[len(JUNK)] *= len(JUNK)
    examples, vectors = unit(atlas.vectors[counting] - scene.origin), unit(vectors)
    out = np.zeros((len(vectors), len(JUNK) + 1))
    for low in range(0, len(vectors), 2048):
        near = np.argpartition(-vectors[low : low + 2048] @ examples.T, _NEAREST, axis=1)[:, :_NEAREST]
        votes = weight[kind[near]]
        for k in range(out.shape[1]):
            out[low : low + 2048, k] = (votes * (kind[near] == k)).sum(1) / votes.sum(1)
    return out


def _beside_lines(scene: Scene, alike: np.ndarray) -> np.ndarray:
    """Which candidates (n,) belong to a line or stand beside one: places that are `alike` (a mask), each near to the next, and that reach
    far."""
    out = np.zeros(len(scene), bool)
    for t, info in enumerate(scene.tomograms):
        rows = np.flatnonzero(alike & (scene.candidates.tomogram == t))
        if len(rows) < 2:
            continue
        xyz = scene.candidates.xyz_A[rows]
        pairs = cKDTree(xyz).query_pairs(_LINE_STEP_A, output_type="ndarray")
        joint = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(rows), len(rows)))
        count, line = connected_components(joint, directed=False)
        reach = np.array([np.linalg.norm(np.ptp(xyz[line == k], axis=0)) for k in range(count)])
        long_A = min(_LINE_A, max(info.shape) * info.voxel_size_A / 2)
        lines = xyz[reach[line] >= long_A]
        if len(lines):
            there = np.flatnonzero(scene.candidates.tomogram == t)
            out[there] = cKDTree(lines).query(scene.candidates.xyz_A[there])[0] <= _LINE_STEP_A
    return out


def _at_edge(scene: Scene) -> np.ndarray:
    out = np.zeros(len(scene))
    for t, info in enumerate(scene.tomograms):
        own = scene.candidates.tomogram == t
        size_A = np.array(info.shape[::-1]) * info.voxel_size_A
        xyz = scene.candidates.xyz_A[own]
        out[own] = (np.minimum(xyz, size_A - xyz) < _EDGE_A).any(1)
    return out


def _dark(scene: Scene) -> np.ndarray:
    out = np.full(len(scene), np.nan)
    for t, info in enumerate(scene.tomograms):
        own = scene.candidates.tomogram == t
        if info.file is None or not Path(info.file).is_file() or not own.any():
            continue
        contrast: Literal["dark", "bright"] = "bright" if info.contrast == "bright" else "dark"
        source = open_tomogram(info.file, info.voxel_size_A)
        region = find_region(source, RegionSettings(exclude_gold=True), contrast)
        out[own] = ~region.contains(scene.candidates.xyz[own])
    return out
