"""Which target explains a place best.

A correlation under a large sphere is worth more than the same one under a small one, where chance reaches further: a small
molecule fits a lobe of a large one well. Divided by what chance comes to, `deviation`, correlations of different molecules
would be equally improbable; but a large molecule then takes the places of small ones that it fits badly, as their
neighbourhood fits it, too. A power in between, chosen on tomograms of another simulator (0.5 to 1 tried), is better than either.

How strong a molecule is in a tomogram is proportional to its mass, whatever it is. So the factor by which a match explains
the tomogram is the same for all that is right, within a fifth, and three times as large at gold, half as large again at the
walls of vesicles. Matches far off it count less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

# The power of the deviation that correlations are divided by, and how near two matches of different targets must be to
# be the same thing, as a share of the larger diameter.
_POWER, _ACROSS = 0.7, 0.5
# Strengths (natural logarithm) up to so far from the usual one count in full, beyond as a normal distribution of this width.
_TOLERATED, _WIDTH = 0.3, 0.3
# Of each molecule so many of its best matches tell the usual strength; kernel width of the logarithm; how far a molecule's own
# usual strength lies from that of all (a t distribution of three degrees: a reference of wrong mass is far off).
_TELLING, _KERNEL, _OWN = 15, 0.15, 0.35
# The share of strays among them, and the weight from which on a molecule's own matches speak with full voice.
_STRAY, _CONVINCING = 1e-3, 15.0
# Scores of averages change by this share with the similarity, and not where it is usual for right ones (0.5 to 1 were best of 0 to 4).
_SIMILARITY, _SIMILAR = 0.5, 0.8
# Matches tell it that lie more than one deviation above the middle of all; three more, and they are sure.
_ABOVE_CHANCE, _SURELY = 1.0, 3.0


@dataclass(frozen=True)
class Matched:
    """All matches of one molecule in a tomogram: xyz_A (n, 3); correlation, strength (n,), as `matcher.Matches` has them;
    deviation: what chance comes to; apart_A: how near two particles of it may lie; group: molecules that were compared at the
    same voxel size share a unit of strength."""

    xyz_A: NDArray[np.float64]
    correlation: NDArray[np.float64]
    strength: NDArray[np.float64]
    deviation: float
    diameter_A: float
    apart_A: float
    mass_kDa: float
    group: float = 0.0
    similarity: NDArray[np.float64] | None = None

    def rank(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """By what it competes with those of other molecules, from its scores."""
        return np.asarray(score / self.deviation**_POWER)


class _Usual(NamedTuple):
    log_strength: NDArray[np.float64]
    weight: NDArray[np.float64]


def scores(matched: dict[str, Matched], decoys: dict[str, Matched]) -> dict[str, NDArray[np.float64]]:
    """The verified score of every match of targets and decoys: its correlation, less where its strength is unusual; of averages,
    whose mass is not known, less where the embedding is another."""
    everything = {**decoys, **matched}
    of_averages = {
        name: np.minimum(one.correlation * np.exp(_SIMILARITY * (one.similarity - _SIMILAR)), 1.0)
        for name, one in everything.items()
        if one.similarity is not None
    }
    weighed = (
        {name: one for name, one in some.items() if name not in of_averages} for some in (matched, decoys)
    )
    return of_averages | _less_where_unusual(*weighed)


def _less_where_unusual(matched: dict[str, Matched], decoys: dict[str, Matched]) -> dict[str, NDArray[np.float64]]:
    everything = {**decoys, **matched}
    alone = {name: one.correlation for name, one in everything.items()}
    won = kept_in_competition(matched, alone)
    won |= {name: kept_beside(one, alone[name], matched, won, alone) for name, one in decoys.items()}
    telling = {name: _telling(one, won[name]) for name, one in everything.items()}
    of_group = {}
    for group in {one.group for one in everything.values()}:
        together = [telling[name] for name, one in everything.items() if one.group == group]
        of_group[group] = _mode(_Usual(*(np.concatenate(part) for part in zip(*together, strict=True))))
    found = {}
    for name, one in everything.items():
        # Decoys have one of their own as targets have: else what is said of them is not what is said of a target that is not there.
        usual = _mode(telling[name], prior=of_group[one.group])
        off = np.abs(_log(one.strength) - usual)
        found[name] = one.correlation * np.exp(-0.5 * (np.maximum(off - _TOLERATED, 0) / _WIDTH) ** 2)
    return found


def kept_in_competition(
    matched: dict[str, Matched], score: dict[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.intp]]:
    """Of each molecule the matches that stay, best first: of two of one molecule nearer than it allows, and of two of
    different ones nearer than half of the larger diameter, the better."""
    names = list(matched)
    first = {name: distinct(one.xyz_A, score[name], one.apart_A) for name, one in matched.items()}
    index = np.concatenate([first[n] for n in names]) if names else np.empty(0, np.intp)
    of = np.repeat(np.arange(len(names)), [len(first[n]) for n in names])
    xyz = np.concatenate([matched[n].xyz_A[first[n]] for n in names]) if names else np.empty((0, 3))
    rank = np.concatenate([matched[n].rank(score[n][first[n]]) for n in names]) if names else np.empty(0)
    diameter = np.array([matched[n].diameter_A for n in names])[of] if names else np.empty(0)
    order = np.argsort(-rank, kind="stable")
    kept = np.ones(len(order), bool)
    if len(order):
        near = cKDTree(xyz).query_ball_point(xyz, _ACROSS * diameter.max())
        for i in order:
            if not kept[i]:
                continue
            rivals = np.array([j for j in near[i] if kept[j] and of[j] != of[i] and rank[j] <= rank[i]], int)
            if len(rivals):
                reach = _ACROSS * np.maximum(diameter[i], diameter[rivals])
                kept[rivals[np.linalg.norm(xyz[rivals] - xyz[i], axis=1) < reach]] = False
    return {name: index[order[kept[order] & (of[order] == k)]] for k, name in enumerate(names)}


def kept_beside(
    one: Matched, score: NDArray[np.float64], others: dict[str, Matched], winners: dict[str, NDArray[np.intp]],
    their_scores: dict[str, NDArray[np.float64]],
) -> NDArray[np.intp]:  # fmt: skip
    """The matches of a decoy that would stay if it were one more target: none where a better match of a target is."""
    own = distinct(one.xyz_A, score, one.apart_A)
    if not others:
        return own
    xyz = np.concatenate([others[n].xyz_A[winners[n]] for n in others])
    rank = np.concatenate([others[n].rank(their_scores[n][winners[n]]) for n in others])
    reach = np.concatenate(
        [np.full(len(winners[n]), _ACROSS * max(o.diameter_A, one.diameter_A)) for n, o in others.items()]
    )
    if not len(xyz) or not len(own):
        return own
    mine = one.rank(score[own])
    near = cKDTree(xyz).query_ball_point(one.xyz_A[own], float(reach.max()))
    lost = [
        any(rank[j] >= mine[i] and np.linalg.norm(xyz[j] - one.xyz_A[own[i]]) < reach[j] for j in about)
        for i, about in enumerate(near)
    ]
    return np.asarray(own[~np.array(lost, bool)])


def distinct(xyz_A: NDArray[np.float64], score: NDArray[np.float64], apart_A: float) -> NDArray[np.intp]:
    """Indices of places (n, 3), best first, of two nearer than `apart_A` the better."""
    order = np.argsort(-score, kind="stable")
    if not len(order):
        return order
    near = cKDTree(xyz_A).query_ball_point(xyz_A, apart_A * (1 - 1e-9))
    kept = np.ones(len(order), bool)
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    for i in order:
        if kept[i]:
            kept[[j for j in near[i] if place[j] > place[i]]] = False
    return np.asarray(order[kept[order]])


def _telling(one: Matched, won: NDArray[np.intp]) -> _Usual:
    """Logarithms of strength of the best matches, weighted by how far they lie above the rest."""
    best = won[np.argsort(-one.correlation[won], kind="stable")][:_TELLING]
    middle = float(np.median(one.correlation)) if len(best) else 0.0
    above: NDArray[np.float64] = (one.correlation[best] - middle) / one.deviation
    return _Usual(_log(one.strength[best]), np.asarray(np.clip(above - _ABOVE_CHANCE, 0, _SURELY) ** 2, float))


def _mode(usual: _Usual, prior: float | None = None) -> float:
    """Where most of the weight lies, in the light of what is expected."""
    if not usual.weight.sum() > 0:
        return prior if prior is not None else 0.0
    grid = np.arange(usual.log_strength.min() - 0.1, usual.log_strength.max() + 0.12, 0.02)
    near = np.exp(-0.5 * ((grid[:, None] - usual.log_strength) / _KERNEL) ** 2)
    log_density = np.log((usual.weight * near).sum(1) / usual.weight.sum() + _STRAY)
    if prior is not None:
        log_density *= min(usual.weight.sum() / _CONVINCING, 1.0)
        log_density -= 2 * np.log1p(((grid - prior) / _OWN) ** 2 / 3)
    return float(grid[int(log_density.argmax())])


def _log(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(strength, 1e-12)))
