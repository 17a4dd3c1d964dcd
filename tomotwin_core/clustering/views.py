"""Views of one molecule that came out as groups of their own are joined again.

How a molecule looks depends on how it lies to the missing wedge, so its copies are no round cloud but a bent one, and with many of
them its ends are told apart as well as two molecules are: by how far the means lie apart they cannot be parted from those. Two
other things can. The views of a molecule point the same way from the mean of all molecules, which is what cosines tell, and
there are copies that lie between, so that neighbours of members of the one are members of the other.

Only among groups that are known to be of whole molecules: junk has no middle, and would run together.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from tomotwin_core.clustering.grouping import Scatter

# Of a pair of groups cosine + 2 x mingling has to be more than 1, mingling counting up to a fifth. In thirteen simulated tomograms that
# joins 48 of 55 pairs of views, and 6 of 150 pairs of different molecules whose cosine is above 0.4.
_ENOUGH, _MINGLING, _MOST_MINGLING = 1.0, 2.0, 0.2
_NEIGHBOURS, _SAMPLED = 5, 200


def rejoined(vectors: np.ndarray, label: np.ndarray, among: np.ndarray, scatter: Scatter) -> np.ndarray:
    """Labels with the views of one molecule in one group, which keeps the lowest of their numbers.

    vectors : (n, d) in the space of comparison.  label : (n,), -1 for noise.  among : the groups that may be joined.
    """
    label, groups = label.copy(), [int(g) for g in among]
    weighted = scatter.turned(np.asarray(vectors, float)) * np.sqrt(_weight(scatter))
    while len(groups) > 1:
        members = [weighted[label == g] for g in groups]
        cosine = cosines(members)
        best, pair = _ENOUGH, None
        for i, j in combinations(range(len(groups)), 2):
            # Mingling is looked at only where it could decide.
            if cosine[i, j] + _MINGLING * _MOST_MINGLING > best:
                likeness = cosine[i, j] + _MINGLING * min(mingling(members[i], members[j]), _MOST_MINGLING)
                best, pair = max((best, pair), (likeness, (i, j)), key=lambda b: b[0])
        if pair is None:
            break
        low, high = sorted(groups[i] for i in pair)
        label[label == high] = low
        groups.remove(high)
    return label


def cosines(members: list[np.ndarray]) -> np.ndarray:
    """Cosines (k, k) between the means of k groups (n, d), without what chance adds to the length of a mean of few."""
    means = np.array([m.mean(0) for m in members])
    chance = np.array([m.var(0, ddof=1).sum() / len(m) if len(m) > 1 else 0.0 for m in members])
    squared = (means**2).sum(1)
    length = np.sqrt(np.maximum(squared - chance, 0.01 * squared + 1e-12))
    return np.asarray(means @ means.T / length / length[:, None])


def mingling(one: np.ndarray, other: np.ndarray) -> float:
    """How far two groups (n, d) and (m, d) go over into each other: of the nearest five neighbours of each member those that are of
    the other group, as a share of what the smaller group could have at most on both sides. 0 where there is a gap between them, about a
    half where two of one size are one."""
    parts = [p[np.linspace(0, len(p) - 1, min(len(p), _SAMPLED)).round().astype(int)] for p in (one, other)]
    both, of = np.concatenate(parts), np.repeat([0, 1], [len(p) for p in parts])
    if len(both) <= _NEIGHBOURS:
        return 0.0
    near = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(both).kneighbors(return_distance=False)
    return float((of[near] != of[:, None]).sum() / (2 * _NEIGHBOURS * min(len(p) for p in parts)))


def _weight(scatter: Scatter) -> np.ndarray:
    """Of each axis: how much of what is seen along it comes from which molecule it is. The least that molecules are taken to differ by
    along any axis is what estimation from few of them adds to all."""
    own = scatter.between - scatter.between.min()
    return np.asarray(own / (own + scatter.widths.mean()))
