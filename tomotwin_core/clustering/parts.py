"""Parts of larger particles: a lobe of a ribosome or a capsomer of a virus looks like a particle, too, and recurs as often.

What tells them is that something stands about them. Every candidate has a likeness to the molecules of the library, and the
size of those that it is most like. The middle of a particle is more like a molecule than its parts are, and larger; so the
candidates are gone through from the most alike and largest on, and each takes those that lie well inside it. A place beside a
particle is like some large molecule, too, if a little: what speaks against it is that it is more like the atlas's junk.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from tomotwin_core.clustering.atlas import Atlas
from tomotwin_core.clustering.scene import Scene
from tomotwin_core.structures.library import load_library

# For the size: the molecules that look most alike, the nearer the more.
_NEIGHBOURS, _SHARPNESS = 8, 12.0
# A place is inside a particle within that share of its diameter: the middles of two that touch are farther apart.
_INSIDE = 0.45
_CHUNK = 4096


def likeness(vectors: np.ndarray, scene: Scene, atlas: Atlas) -> tuple[list[str], np.ndarray]:
    """Names of the library's molecules in the atlas, and cosines (n, m) of vectors (n, d) of the scene's frame with them."""
    names, middles = atlas.molecules
    middles = middles - scene.origin
    length = np.linalg.norm(vectors, axis=1)[:, None] * np.linalg.norm(middles, axis=1)
    return names, np.asarray(vectors @ middles.T / np.maximum(length, 1e-9))


def sizes_A(names: list[str], cosines: np.ndarray) -> np.ndarray:
    """Diameters (n,) of what has these cosines (n, m) with molecules: the mean of those that it is most like."""
    diameter_A = np.array([load_library().entries[name].diameter_A for name in names])
    nearest = np.argsort(-cosines, axis=1)[:, :_NEIGHBOURS]
    weight = np.exp(_SHARPNESS * np.take_along_axis(cosines, nearest, axis=1))
    return np.asarray((weight * diameter_A[nearest]).sum(1) / weight.sum(1))


def wholes(scene: Scene, atlas: Atlas | None, molecule: np.ndarray) -> np.ndarray:
    """The row of the candidate that each candidate lies inside of (n,), -1 for those that lie in none.

    molecule : how much each looks like a molecule rather than like junk (n,), 0 to 1.
    """
    whole = np.full(len(scene), -1)
    if atlas is None or not len(scene):
        return whole
    vectors, rank, size = scene.vectors, np.empty(len(scene)), np.empty(len(scene))
    for low in range(0, len(vectors), _CHUNK):
        part = slice(low, low + _CHUNK)
        names, cosines = likeness(vectors[part], scene, atlas)
        size[part] = sizes_A(names, cosines)
        rank[part] = cosines.max(1) * np.sqrt(size[part]) * molecule[part]
    xyz = scene.candidates.xyz_A
    for t in np.unique(scene.candidates.tomogram):
        rows = np.flatnonzero(scene.candidates.tomogram == t)
        tree = cKDTree(xyz[rows])
        for i in rows[np.argsort(-rank[rows], kind="stable")]:
            if whole[i] < 0:
                near = rows[tree.query_ball_point(xyz[i], _INSIDE * size[i])]
                whole[near[(whole[near] < 0) & (rank[near] < rank[i])]] = i
    return whole


def share_inside(whole: np.ndarray, members: np.ndarray) -> float:
    """The share of members (rows) that lie inside of something that is no member; of two members in one particle one counts."""
    own = np.isin(whole[members], members)
    return float(((whole[members] >= 0) & ~own).sum() / max((~own).sum(), 1))
