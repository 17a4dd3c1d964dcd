"""Which candidates belong together: a mixture of groups whose spread is known beforehand.

The space of comparison is made so that copies of one molecule scatter alike in all directions, and the atlas says how wide
(it differs from molecule to molecule) and how far the means of molecules lie apart. So what makes two candidates copies of
one molecule is not a matter of taste: a group's members are x ~ N(m, w I), its mean m ~ N(m0, B), its width w one of those
that molecules of the library have. m and w are integrated out (for B, known from the atlas, in closed form, the model of
probabilistic discriminant analysis: Ioffe 2006; Prince and Elder 2007), which leaves the evidence of a set of candidates as
one group. How likely groups of these sizes are beforehand is that of a Chinese restaurant process (Aldous 1985) in which a
candidate is a stranger as often as one in five. Groups start as small sets (k-means) and are

    sorted   each candidate goes to the group that predicts it, without counting itself there, or to none where a group of
             its own would predict it better; drawn by these probabilities, because always taking the best one cuts groups
             off at the border between them, where the parts of one then look tighter than the whole
    merged   while the evidence of two as one group is larger than as two, the largest gain first
    split    where the two halves of a group (k-means) have more evidence than the whole

three times; then sorted without drawing, and merged once more with all widths taken half as wide again, because copies in
different neighbourhoods scatter less evenly than a normal distribution. What no group predicts, and groups that stay too small, are noise.

How far the copies of one molecule lie from a normal distribution adds up with every copy until it outweighs everything, so that many
copies come out as several groups: `views` joins them again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammaln
from sklearn.cluster import KMeans, MiniBatchKMeans

_PER_START = 6
_MOST_STARTS = 400
_ROUNDS, _SWEEPS, _DRAWN_SWEEPS = 3, 6, 2
_SHRINKAGE = 0.3
_CHUNK = 4096
# Beforehand so many candidates of all are strangers to any group.
_STRANGERS = 0.25
# At last groups are merged that are one if copies scatter so many times wider.
_LOOSE = 1.5


@dataclass(frozen=True)
class Scatter:
    """Of molecules in the space of comparison. mean (d,), axes (d, d), between (d,): the means of molecules are normal about
    `mean` with variances `between` along the columns of `axes`.  widths (k,): variances of copies about their mean, per axis
    of the space, equally probable."""

    mean: np.ndarray
    axes: np.ndarray
    between: np.ndarray
    widths: np.ndarray

    @classmethod
    def fitted(cls, vectors: np.ndarray, label: np.ndarray, widths: int = 6) -> Scatter:
        """From examples (n, d) with the molecule of each; those seen less than four times do not count."""
        means, spread = [], []
        for name in np.unique(label):
            own = vectors[label == name]
            if len(own) >= 4:
                means.append(own.mean(0))
                spread.append(float(own.var(0, ddof=1).mean()))
        stacked = np.array(means)
        scatter = np.cov(stacked.T)
        size = len(scatter)
        scatter = (1 - _SHRINKAGE) * scatter + _SHRINKAGE * np.trace(scatter) / size * np.eye(size)
        values, axes = np.linalg.eigh(scatter)
        at = (np.arange(widths) + 0.5) / widths
        return cls(stacked.mean(0), axes, values, np.quantile(spread, at))

    @classmethod
    def unknown(cls, covariance: np.ndarray) -> Scatter:
        """Where no molecule is known: molecules spread as much as everything there is does, by its covariance (d, d) about
        0, and copies of one an eighth to a half of that."""
        values, axes = np.linalg.eigh(covariance)
        values = np.maximum(values, 1e-3 * values.max())
        return cls(np.zeros(len(values)), axes, values, np.array([0.12, 0.25, 0.5]) * float(values.mean()))

    def turned(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (n, d) in the frame of the axes, about the mean."""
        return np.asarray((vectors - self.mean) @ self.axes)


@dataclass
class _Sums:
    """Of groups: count (k,), sum (k, d), sum of squares (k,)."""

    count: np.ndarray
    total: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, label: np.ndarray, groups: int) -> _Sums:
        count = np.bincount(label, minlength=groups).astype(float)
        total = np.zeros((groups, vectors.shape[1]))
        np.add.at(total, label, vectors)
        return cls(count, total, np.bincount(label, (vectors**2).sum(1), groups))


def grouped(
    vectors: np.ndarray, scatter: Scatter, fewest: int = 6, seed: int = 1, known: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Groups among candidates.

    vectors : (n, d) in the space of comparison, not of unit length.  fewest : smaller groups are noise.  known : (n,) groups to start
    from, -1 for none, which are gone over once.
    Returns label (n,), -1 for noise, the largest group first, and each candidate's probability to belong to its group, 0
    for noise.
    """
    n = len(vectors)
    if n < max(2 * fewest, 3):
        return np.full(n, -1), np.zeros(n)
    turned = scatter.turned(np.asarray(vectors, float))
    rng = np.random.default_rng(seed)
    label, rounds = (_start(turned, seed), _ROUNDS) if known is None else (known.copy(), 1)
    for _ in range(rounds):
        label, _ = _sorted(turned, label, scatter, rng)
        label = _merged(turned, label, scatter)
        label = _split(turned, label, scatter, fewest, seed)
    label, _ = _sorted(turned, label, scatter, rng)
    label = _merged(turned, label, scatter)
    label, probability = _sorted(turned, label, scatter)
    label = _merged(turned, label, replace(scatter, widths=_LOOSE * scatter.widths))
    return named(label, probability, fewest)


def evidence(count: np.ndarray, total: np.ndarray, square: np.ndarray, scatter: Scatter) -> np.ndarray:
    """Log evidence (...,) of sets of candidates as one group each, from count (...,), sum (..., d) and sum of squares (...,)."""
    d, squared = total.shape[-1], total**2
    # What depends on how many there are alone: many sets are equally large, and logarithms take the time.
    sizes, at = np.unique(count, return_inverse=True)
    at = at.reshape(np.shape(count))
    logs = []
    for w in scatter.widths:
        ratio = 1 + sizes[:, None] * scatter.between / w
        gain = (squared * (scatter.between / (w * w * ratio))[at]).sum(-1)
        logs.append(-0.5 * (count * d * np.log(2 * np.pi * w) + np.log(ratio).sum(-1)[at] + square / w - gain))
    stacked = np.stack(logs)
    top = stacked.max(0)
    return np.asarray(top + np.log(np.exp(stacked - top).mean(0)))


def _prior_of_joining(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """Log odds beforehand that sets of a and b of n candidates are one group, and not two."""
    return np.asarray(gammaln(a + b) - gammaln(a) - gammaln(b) - np.log(_STRANGERS * n))


def joined(
    k: int, gains: Callable[[int, np.ndarray], np.ndarray], join: Callable[[int, int], None], least: float = 0.0
) -> np.ndarray:
    """Greedy joining of k groups, the pair that gains most first, while it gains more than `least`: which group each ends in (k,).

    gains : of joining group i with each other one, (k,); those that do not count (False in its second argument, a mask) may be anything.
    join : told that group j is in group i from now on, i < j.
    """
    gain, alive, into = np.full((k, k), -np.inf), np.zeros(k, bool), np.arange(k)

    def compare(i: int) -> None:
        alive[i] = False
        gain[i] = gain[:, i] = np.where(alive, gains(i, alive), -np.inf)
        alive[i] = True

    for one in range(k):
        compare(one)
    while k:
        i, j = divmod(int(gain.argmax()), k)
        if not gain[i, j] > least:
            break
        join(i, j)
        alive[j] = False
        gain[j] = gain[:, j] = -np.inf
        into[into == j] = i
        compare(i)
    return into


def _start(vectors: np.ndarray, seed: int) -> np.ndarray:
    k = int(np.clip(len(vectors) // _PER_START, 2, _MOST_STARTS))
    kind = KMeans if len(vectors) <= 8 * _MOST_STARTS else MiniBatchKMeans
    return np.asarray(kind(k, n_init=1, random_state=seed).fit(vectors).labels_)


def _merged(vectors: np.ndarray, label: np.ndarray, scatter: Scatter) -> np.ndarray:
    """Greedy merging; noise (-1) stays noise."""
    label = label.copy()
    grouped = label >= 0
    if not grouped.any():
        return label
    _, label[grouped] = np.unique(label[grouped], return_inverse=True)
    k, n = int(label.max()) + 1, len(vectors)
    sums = _Sums.of(vectors[grouped], label[grouped], k)
    own = evidence(sums.count, sums.total, sums.square, scatter)

    def gains(i: int, _: np.ndarray) -> np.ndarray:
        both = evidence(sums.count + sums.count[i], sums.total + sums.total[i], sums.square + sums.square[i], scatter)
        return np.asarray(both - own - own[i] + _prior_of_joining(sums.count, sums.count[i], n))

    def join(i: int, j: int) -> None:
        for part in (sums.count, sums.total, sums.square):
            part[i] += part[j]
        own[i] = evidence(sums.count[i], sums.total[i], sums.square[i], scatter)

    label[grouped] = joined(k, gains, join)[label[grouped]]
    return label


def _sorted(
    vectors: np.ndarray, label: np.ndarray, scatter: Scatter, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Every candidate to the group that predicts it best, or to none; with `rng` to one drawn by these probabilities."""
    probability = np.zeros(len(label))
    alone = evidence(np.ones(len(vectors)), vectors, (vectors**2).sum(1), scatter)
    for _ in range(_DRAWN_SWEEPS if rng else _SWEEPS):
        before = label.copy()
        grouped = label >= 0
        if not grouped.any():
            return label, probability
        _, label[grouped] = np.unique(label[grouped], return_inverse=True)
        k = int(label.max()) + 1
        sums = _Sums.of(vectors[grouped], label[grouped], k)
        whole = evidence(sums.count, sums.total, sums.square, scatter)
        for low in range(0, len(vectors), _CHUNK):
            part = slice(low, low + _CHUNK)
            score = _predictions(vectors[part], label[part], sums, whole, scatter)
            score = np.concatenate([score, alone[part, None] + np.log(_STRANGERS * len(vectors))], axis=1)
            best = (score + rng.gumbel(size=score.shape)).argmax(1) if rng else score.argmax(1)
            top = score.max(1, keepdims=True)
            share = np.exp(score - top)
            probability[part] = share[np.arange(len(best)), best] / share.sum(1)
            label[part] = np.where(best == k, -1, best)
        if (label == before).all():
            break
    return label, np.where(label >= 0, probability, 0.0)


def _predictions(vectors: np.ndarray, label: np.ndarray, sums: _Sums, whole: np.ndarray, scatter: Scatter) -> np.ndarray:
    """Log predictive density of each candidate (n, k) by each group, weighted with its count; its own group without it.

    whole : (k,) evidence of the groups.
    """
    out = _predicted(vectors, sums.count, sums.total, sums.square, scatter)
    member = np.flatnonzero(label >= 0)
    own = label[member]
    count, total = sums.count[own] - 1, sums.total[own] - vectors[member]
    rest = sums.square[own] - (vectors[member] ** 2).sum(1)
    without = evidence(count, total, rest, scatter)
    out[member, own] = np.where(count > 0, whole[own] - without + np.log(np.maximum(count, 1)), -np.inf)
    return out


def _predicted(
    vectors: np.ndarray, count: np.ndarray, total: np.ndarray, square: np.ndarray, scatter: Scatter
) -> np.ndarray:
    """The same (n, k) of candidates that are in none of the groups: for each width the density is normal. In float32: this is
    what takes the time with many candidates, and densities differ by whole numbers where it matters."""
    d = total.shape[1]
    single = vectors.astype(np.float32)
    squares = single**2
    # In place: getting memory for arrays of this size takes as long as filling them.
    density = np.empty((len(scatter.widths), len(vectors), len(count)), np.float32)
    scratch = np.empty_like(density[0])
    weights = np.empty((len(density), len(count)))
    for own, weight, w in zip(density, weights, scatter.widths, strict=True):
        ratio = 1 + count[:, None] * scatter.between / w
        middle = total * scatter.between / (w * ratio)
        variance = w + scatter.between / ratio
        precision, pull = (1 / variance).T.astype(np.float32), (2 * middle / variance).T.astype(np.float32)
        np.matmul(squares, precision, out=own)
        own -= np.matmul(single, pull, out=scratch)
        own += ((middle**2 / variance).sum(1) + np.log(2 * np.pi * variance).sum(1)).astype(np.float32)
        own *= -0.5
        gain = (total**2 * (scatter.between / (w * w * ratio))).sum(1)
        weight[:] = -0.5 * (count * d * np.log(2 * np.pi * w) + np.log(ratio).sum(1) + square / w - gain)
    weights -= weights.max(0)
    weights -= np.log(np.exp(weights).sum(0))
    density += weights[:, None].astype(np.float32)
    top = density.max(0)
    density -= top
    return np.asarray(top + np.log(np.exp(density, out=density).sum(0)) + np.log(np.maximum(count, 1)), float)


def _split(vectors: np.ndarray, label: np.ndarray, scatter: Scatter, fewest: int, seed: int) -> np.ndarray:
    label = label.copy()
    for k in np.unique(label[label >= 0]):
        own = np.flatnonzero(label == k)
        if len(own) < 2 * fewest:
            continue
        halves = KMeans(2, n_init=2, random_state=seed).fit(vectors[own]).labels_
        sums = _Sums.of(vectors[own], halves, 2)
        apart = evidence(sums.count, sums.total, sums.square, scatter).sum()
        whole = evidence(sums.count.sum(), sums.total.sum(0), sums.square.sum(), scatter)
        whole = whole + _prior_of_joining(sums.count[0], sums.count[1], len(vectors))
        if apart > whole and sums.count.min() >= fewest:
            label[own[halves == 1]] = label.max() + 1
    return label


def named(label: np.ndarray, probability: np.ndarray, fewest: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups numbered anew, the largest first, those of less than `fewest` members and their probabilities put to noise."""
    out = np.full(len(label), -1)
    counts = np.bincount(label[label >= 0], minlength=1)
    for rank, k in enumerate(k for k in np.argsort(-counts, kind="stable") if counts[k] >= fewest):
        out[label == k] = rank
    return out, np.where(out >= 0, probability, 0.0)
