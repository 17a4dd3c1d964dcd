"""Views of one molecule that came out as groups of their own are joined again.

How a molecule looks depends on how it lies to the missing wedge, so its copies are no round cloud but a bent one, and with many of
them its ends are told apart as well as two molecules are: by how far the means lie apart they cannot be parted from those. Two
other things can. The views of a molecule point the same way from the mean of all molecules, which is what cosines tell, and
there are copies that lie between, so that neighbours of members of the one are members of the other.

Only among groups that are known to be of whole molecules: junk has no middle, and would run together.

At last the neighbours have their word: whose nearest candidates are nearly all of another group belongs there, whatever the model of
round clouds says.
"""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from tomotwin_core.clustering.grouping import Scatter, joined
from tomotwin_core.picking.references import unit

# Of a pair of groups cosine + 2 x mingling has to be more than 1.03, mingling counting up to a fifth (chosen on simulated tomograms:
# docs/clustering.md).
_ENOUGH, _MINGLING, _MOST_MINGLING = 1.03, 2.0, 0.2
_NEIGHBOURS, _SAMPLED = 5, 200
# So many of so many nearest candidates overrule which group a candidate is in, looked at so often.
_OVERRULING, _ASKED, _ROUNDS = 7, 9, 3


def rejoined(vectors: np.ndarray, label: np.ndarray, among: np.ndarray, scatter: Scatter) -> np.ndarray:
    """Labels with the views of one molecule in one group, which keeps the lowest of their numbers.

    vectors : (n, d) in the space of comparison.  label : (n,), -1 for noise.  among : the groups that may be joined.
    """
    groups = np.sort(among)
    if len(groups) < 2:
        return label
    growing = Growing(vectors, label, groups, scatter)

    def likeness(i: int, which: np.ndarray) -> np.ndarray:
        out = np.full(len(groups), -np.inf)
        cosines = growing.cosines(i)
        # Mingling is looked at only where it could decide.
        for j in np.flatnonzero(which & (cosines + _MINGLING * _MOST_MINGLING > _ENOUGH)):
            out[j] = cosines[j] + _MINGLING * min(mingling(growing.members(i), growing.members(j)), _MOST_MINGLING)
        return out

    into = joined(len(groups), likeness, growing.join, _ENOUGH)
    label = label.copy()
    for group in np.unique(into):
        label[growing.rows[group]] = groups[group]
    return label


class Growing:
    """Groups that are joined one by one: rows (of each), and where they point from the mean of all molecules."""

    def __init__(self, vectors: np.ndarray, label: np.ndarray, groups: np.ndarray, scatter: Scatter) -> None:
        self._vectors = _weighted(vectors, scatter)
        self.rows = [np.flatnonzero(label == g) for g in groups]
        self._middles = np.array([middle(self.members(i)) for i in range(len(groups))])

    def members(self, i: int) -> np.ndarray:
        """(m, d), each axis counting as much as it tells."""
        return np.asarray(self._vectors[self.rows[i]])

    def cosines(self, i: int) -> np.ndarray:
        """Of group i's middle with all groups' (k,)."""
        return np.asarray(self._middles @ self._middles[i])

    def join(self, i: int, j: int) -> None:
        """Group j is in group i from now on."""
        self.rows[i] = np.sort(np.concatenate([self.rows[i], self.rows[j]]))
        self._middles[i] = middle(self.members(i))


def settled(vectors: np.ndarray, label: np.ndarray, scatter: Scatter) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) after the neighbours' word, by which a group, or noise (-1), may gain and lose; and the share (n,) of each candidate's
    neighbours that are of its group then."""
    label = label.copy()
    if len(label) <= _ASKED:
        return label, np.ones(len(label))
    near = NearestNeighbors(n_neighbors=_ASKED).fit(unit(_weighted(vectors, scatter)).astype(np.float32)).kneighbors(return_distance=False)
    for _ in range(_ROUNDS):
        # What most of them are is the middle one of their sorted labels.
        wanted = np.sort(label[near], axis=1)[:, _ASKED // 2]
        label = np.where((label[near] == wanted[:, None]).sum(1) >= _OVERRULING, wanted, label)
    return label, (label[near] == label[:, None]).mean(1)


def middle(members: np.ndarray) -> np.ndarray:
    """The mean of a group (n, d) over its length, the latter without what chance adds to that of a mean of few; the product of two is
    their cosine, freed of chance."""
    mean = members.mean(0)
    squared = float(mean @ mean)
    chance = float(members.var(0, ddof=1).sum()) / len(members) if len(members) > 1 else 0.0
    return np.asarray(mean / np.sqrt(max(squared - chance, 0.01 * squared + 1e-12)))


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


def _weighted(vectors: np.ndarray, scatter: Scatter) -> np.ndarray:
    """Vectors (n, d) of the space of comparison about the mean of all molecules, each axis counting as much as it tells which molecule
    it is."""
    return np.asarray(scatter.turned(np.asarray(vectors, float)) * np.sqrt(_weight(scatter)))


def _weight(scatter: Scatter) -> np.ndarray:
    """Of each axis: how much of what is seen along it comes from which molecule it is. The least that molecules are taken to differ by
    along any axis is what estimation from few of them adds to all."""
    own = scatter.between - scatter.between.min()
    return np.asarray(own / (own + scatter.widths.mean()))
