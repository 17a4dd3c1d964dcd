"""The same molecule in several tomograms.

Clusters of different tomograms, each clustered by itself, are joined where they are of the same kind and their middles point the same way
from the mean of all molecules. That is told much better than whether two candidates are copies of one molecule: the copies of
two tomograms scatter differently (defocus, thickness, neighbours), but a cluster has all views of its molecule, and its middle
hardly depends on them. Clusters of one tomogram stay apart: whether they are one was decided there.

How many of them are found in several tomograms tells whether these are of one sample. Then it is better to cluster what may be a
species together, for more copies tell more; where they have little in common it only crowds the space, and it takes more to believe
that two clusters are one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tomotwin_core.clustering.grouping import Scatter, joined
from tomotwin_core.clustering.views import Growing

# The cosine that middles need: clusters of one unseen molecule in two simulated tomograms mostly have it, of different
# molecules only the most similar (chosen on those: docs/clustering.md).
_ENOUGH = 0.91
# And where tomograms are of different samples.
ENOUGH_APART = 0.96
# Tomograms are of one sample where so large a share of their species clusters is in several (docs/clustering.md: more in ones of one
# sample, less in others).
_ONE_SAMPLE = 0.65


def joined_across(
    vectors: np.ndarray, label: np.ndarray, tomogram: np.ndarray, kinds: Sequence[str], scatter: Scatter, enough: float = _ENOUGH
) -> np.ndarray:
    """Labels (n,) with clusters of different tomograms that are one in one, which keeps the lowest of their numbers.

    vectors : (n, d) in the space of comparison.  label : (n,), -1 for noise; clusters of one tomogram each.  tomogram : (n,) of each
    candidate.  kinds : of each cluster, by its number.  enough : the cosine that middles need.
    """
    if not kinds:
        return label
    growing = Growing(vectors, label, np.arange(len(kinds)), scatter)
    there = np.zeros((len(kinds), int(tomogram.max()) + 1), bool)
    there[np.arange(len(kinds)), [tomogram[r[0]] for r in growing.rows]] = True
    kind, into = np.array(kinds), np.arange(len(kinds))
    for one in np.unique(kind):
        own = np.flatnonzero(kind == one)
        into[own] = own[_joined_alike(growing, there, own, enough)]
    return np.where(label >= 0, into[label], -1)


def _joined_alike(growing: Growing, there: np.ndarray, own: np.ndarray, enough: float) -> np.ndarray:
    """Of the groups `own` (k,), of one kind: at which of them each ends.  there : in which tomograms each group is; kept up to date."""

    def likeness(i: int, _: np.ndarray) -> np.ndarray:
        return np.where((there[own] & there[own[i]]).any(1), -np.inf, growing.cosines(own[i])[own])

    def join(i: int, j: int) -> None:
        growing.join(own[i], own[j])
        there[own[i]] |= there[own[j]]

    return joined(len(own), likeness, join, enough)


def of_one_sample(before: np.ndarray, after: np.ndarray, kinds: Sequence[str]) -> bool:
    """Whether most species are in several tomograms, from the labels (n,) before and after their clusters were joined across them."""
    into = [int(after[before == k][0]) for k, kind in enumerate(kinds) if kind == "species"]
    _, which, times = np.unique(into, return_inverse=True, return_counts=True)
    return len(into) > 0 and float((times[which] > 1).mean()) >= _ONE_SAMPLE
