"""Which picks are right: every true particle takes one pick at most, and as many as possible get one.

Giving each pick in turn its nearest particle loses matches where particles are crowded: a pick between two of them may
take the one that is another pick's only chance. So the pairs are chosen together, first as many as can be and among
those the closest (linear assignment within each group of picks and particles that are connected at all).

Positions are (N, 3) arrays of x, y, z in any unit; distances and tolerances are in the same one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]

PAPER_MIN_IOU = 0.6


def match(picks: ArrayLike, truth: ArrayLike, tolerance: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair picks with true positions no farther than `tolerance`, one-to-one, as many as possible.

    Returns
    -------
    pick, true : int arrays (M,)
        Indices of the M pairs, in the order of the picks. Among all choices of M pairs this has the smallest sum of
        distances.
    """
    found, true = _positions(picks), _positions(truth)
    i, j = _close_pairs(found, true, tolerance)
    return _assign(i, j, np.linalg.norm(found[i] - true[j], axis=1))


def match_boxes(
    picks: ArrayLike, truth: ArrayLike, side: float, min_iou: float = PAPER_MIN_IOU
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """As `match`, for cubes of one `side` that must overlap by more than `min_iou`: the TomoTwin paper's criterion."""
    i, j, overlap = _overlapping_pairs(_positions(picks), _positions(truth), side, min_iou)
    return _assign(i, j, 1 - overlap)


def box_iou(a: ArrayLike, b: ArrayLike, side: float) -> NDArray[np.float64]:
    """Intersection over union of cubes of one `side` centred on a (N, 3) and b (N, 3), pair by pair."""
    common = np.prod(np.clip(side - np.abs(_positions(a) - _positions(b)), 0, None), axis=1)
    iou: NDArray[np.float64] = common / (2 * side**3 - common)
    return iou


def rightness_in_order(ranked_picks: ArrayLike, truth: ArrayLike, tolerance: float) -> NDArray[np.bool_]:
    """Which of the picks, taken from the best to the worst, adds a match to those before it.

    The sum over the first k is the number of pairs that `match` finds for these k picks, for every k at once: a new
    pick raises it when an augmenting path leads from it to a particle still free (Berge, PNAS 43, 842, 1957).
    """
    found, true = _positions(ranked_picks), _positions(truth)
    return _gains(len(found), *_close_pairs(found, true, tolerance))


def box_rightness_in_order(
    ranked_picks: ArrayLike, truth: ArrayLike, side: float, min_iou: float = PAPER_MIN_IOU
) -> NDArray[np.bool_]:
    """As `rightness_in_order`, for the pairs that `match_boxes` allows."""
    found, true = _positions(ranked_picks), _positions(truth)
    i, j, _ = _overlapping_pairs(found, true, side, min_iou)
    return _gains(len(found), i, j)


def _gains(number: int, i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which of a `number` of picks, one after the other, adds a match, with the allowed pairs (i, j)."""
    near: list[list[int]] = [[] for _ in range(number)]
    for pick, particle in zip(i.tolist(), j.tolist(), strict=True):
        near[pick].append(particle)
    taken_by: dict[int, int] = {}
    has: dict[int, int] = {}
    return np.array([_augment(pick, near, taken_by, has) for pick in range(number)], dtype=np.bool_)


def _augment(pick: int, near: Sequence[Sequence[int]], taken_by: dict[int, int], has: dict[int, int]) -> bool:
    """Find a particle for a pick, if need be by moving others on, and update who has which; breadth first."""
    reached_from: dict[int, int] = {}
    waiting = [pick]
    for current in waiting:  # grows while it is walked
        for particle in near[current]:
            if particle in reached_from:
                continue
            reached_from[particle] = current
            if particle in taken_by:
                waiting.append(taken_by[particle])
                continue
            free: int | None = particle
            while free is not None:  # back along the path, each pick takes this one and leaves the one it had
                owner = reached_from[free]
                taken_by[free], left = owner, has.get(owner)
                has[owner] = free
                free = left
            return True
    return False


def _positions(xyz: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(xyz, np.float64).reshape(-1, 3)


def _close_pairs(a: NDArray[np.float64], b: NDArray[np.float64], reach: float, p: float = 2.0) -> Pairs:
    """Indices of all pairs no farther than `reach` in the p-norm."""
    if not len(a) or not len(b):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    lists = cKDTree(b).query_ball_point(a, reach, p=p, return_sorted=True)
    i = np.repeat(np.arange(len(a)), [len(near) for near in lists])
    j = np.fromiter((index for near in lists for index in near), np.intp)
    return i, j


def _overlapping_pairs(
    a: NDArray[np.float64], b: NDArray[np.float64], side: float, min_iou: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Indices of all pairs of cubes that overlap by more than `min_iou`, and by how much they do."""
    # An IoU above m means an overlap above 2m / (1 + m) of a cube, hence along no axis a farther shift than the rest.
    reach = side * (1 - 2 * min_iou / (1 + min_iou))
    i, j = _close_pairs(a, b, reach, p=np.inf)
    overlap = box_iou(a[i], b[j], side)
    good = overlap > min_iou
    return i[good], j[good], overlap[good]


def _assign(i: NDArray[np.intp], j: NDArray[np.intp], cost: NDArray[np.float64]) -> Pairs:
    """The most pairs, then the cheapest, out of the allowed pairs (i, j)."""
    if not len(i):
        return i, j
    n = int(i.max()) + 1
    both = n + int(j.max()) + 1
    _, group = connected_components(coo_array((np.ones(len(i)), (i, n + j)), shape=(both, both)), directed=False)
    order = np.argsort(group[i], kind="stable")
    chosen = []
    for edges in np.split(order, np.flatnonzero(np.diff(group[i][order])) + 1):
        rows, row = np.unique(i[edges], return_inverse=True)
        columns, column = np.unique(j[edges], return_inverse=True)
        # Each pair made is worth more than all distances together can cost.
        worth = cost[edges].sum() + 1.0
        gain = np.zeros((len(rows), len(columns)))
        gain[row, column] = worth - cost[edges]
        r, c = linear_sum_assignment(gain, maximize=True)
        allowed = gain[r, c] > 0
        chosen.append(np.stack((rows[r[allowed]], columns[c[allowed]])))
    pairs = np.concatenate(chosen, axis=1)
    pairs = pairs[:, np.argsort(pairs[0])]
    return pairs[0], pairs[1]
