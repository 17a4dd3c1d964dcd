"""How many of the picks at a score are expected to be false: calibration of scores, false-discovery rates, thresholds.

The peaks of a target are a mixture of right and wrong ones. How the scores of either are spread is learnt on simulated
tomograms, which are picked with references made from the others of them (`Calibration.fitted`). Which part of a user's
peaks is right differs from tomogram to tomogram and is estimated from these peaks' scores by expectation maximisation
(Saerens, Latinne and Decaestecker, Neural Computation 14, 21, 2002), starting from and held near the simulated part. That
gives every peak the probability that it is right; the mean of the others' over all peaks of at least its score is the
false-discovery rate expected if one cuts there (Efron, Large-Scale Inference, 2010, chapter 5).

Where wrong peaks lie differs from one tomogram to the next, too: simulated densities of them are as wide as that wants, and
those of references made from examples, which know the tomogram's noise and contrast where no simulation does, are moved to
where the tomogram's own peaks lie, as wide as these are. That is told by all of them, those too that go to other targets in
competition: they are thousands, most of them wrong, where competition leaves few of an odd selection.

The mean of that probability and of another is taken, which knows less of simulations and more of how the tomogram's highest
peaks lie (mixture.py): each is wrong where the other is right, and the mean is better than either.

Measured against it on tomograms of held-out species (benchmarks/calibration.py): normal null distributions fitted to the
bulk of the peaks, mixtures of two normal distributions, and decoy references (other molecules, random directions). They
promise 5 % where 60 to 90 % are false, because what a wrong peak looks like is not noise but other molecules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.stats import gaussian_kde
from sklearn.isotonic import isotonic_regression

from tomotwin_core.picking import mixture

ALMOST_ONE = 1.0 - 1e-6
# Fisher's z = artanh(score), at which densities are tabulated.
Z_GRID = np.linspace(-1.5, 3.0, 451)
_FEWEST_RIGHT, _FEWEST_WRONG, _MOST = 5, 20, 3000
# Widths of the kernels in standard deviations: few right peaks need a wide one.
_WIDTH_RIGHT, _WIDTH_WRONG = 0.5, 0.25
# How far the scores of a species' peaks move from one tomogram to another, as a standard deviation of Fisher's z: measured on
# structures' references, real tomograms less simulated ones (docs/picking.md).
_BETWEEN_TOMOGRAMS = 0.15
_LEAST_DENSITY = 1e-6
# The simulated share of right peaks speaks with the voice of so many peaks per peak of the tomogram.
_PRIOR_WEIGHT = 0.3
_ROUNDS = 200
# Quantiles of wrong peaks at which a density that floats is made to agree with a tomogram's. Peaks that count as right meanwhile:
# those that score as the upper three quarters of right ones do, a tenth less, at most half of all. How much narrower or wider
# the density may become.
_LOWER, _UPPER, _RIGHT_FROM, _OF_THESE, _MOST_RIGHT = 0.82, 0.97, 0.25, 0.9, 0.5
_WIDTHS = 0.7, 2.5
# How much higher than expected right peaks lie, in Fisher's z: of references from examples and from structures, measured as in
# mixture.py.
_HIGHER_EXAMPLES, _HIGHER_STRUCTURES = 0.03, 0.1


@dataclass(frozen=True)
class Calibration:
    """right, wrong (451,) float32: densities of Fisher's z of right and of wrong peaks on `Z_GRID`; prevalence: which
    share of the simulated peaks was right; floating: `wrong` is to be moved to where a tomogram's own peaks lie."""

    right: np.ndarray
    wrong: np.ndarray
    prevalence: float
    floating: bool = False

    @classmethod
    def fitted(cls, scores: np.ndarray, right: np.ndarray) -> Calibration | None:
        """From the scores (n,) of simulated peaks and which of them are right (n,); None where there are too few."""
        if right.sum() < _FEWEST_RIGHT or (~right).sum() < _FEWEST_WRONG:
            return None
        wrong = gaussian_filter1d(_density(scores[~right], _WIDTH_WRONG), _BETWEEN_TOMOGRAMS / (Z_GRID[1] - Z_GRID[0]))
        return cls(_density(scores[right], _WIDTH_RIGHT), wrong, float(np.mean(right)))

    def probabilities(
        self, scores: np.ndarray, least: float = -1.0, everywhere: np.ndarray | None = None
    ) -> np.ndarray:
        """That each peak is right, (n,).

        scores : those of all peaks of the target in one tomogram that score at least `least`.  everywhere : for a
        calibration that floats, the scores of all peaks of the target, those too that other targets took.
        """
        simulated = self.as_simulated(scores, least, everywhere)
        higher = _HIGHER_EXAMPLES if self.floating else _HIGHER_STRUCTURES
        z = np.clip(fisher_z(scores), Z_GRID[0], Z_GRID[-1])
        fitted = mixture.probabilities(z, _quantile(self.right, 0.5) + higher)
        if fitted is None:
            return simulated
        return (simulated + fitted) / 2

    def as_simulated(
        self, scores: np.ndarray, least: float = -1.0, everywhere: np.ndarray | None = None
    ) -> np.ndarray:
        """The same by the simulated densities alone."""
        judged = scores if everywhere is None or not self.floating else everywhere
        if not len(scores) or not len(judged):
            return np.zeros(len(scores))
        listed = np.tanh(Z_GRID) >= least
        wrong = self._wrong_here(judged)
        share_right, share_wrong = (
            max(float(d[listed].sum() / d.sum()), floor) for d, floor in ((self.right, 1e-3), (wrong, 1e-6))
        )
        right, wrong = self.right / share_right, wrong / share_wrong
        # A higher score never makes a peak less probable, whatever few examples say.
        log_ratio = isotonic_regression(
            np.log((right + _LEAST_DENSITY) / (wrong + _LEAST_DENSITY)), sample_weight=(right + wrong) * listed + 1e-9
        )
        of_judged, ratio = (np.exp(np.interp(fisher_z(s), Z_GRID, log_ratio)) for s in (judged, scores))
        part = self.prevalence * share_right
        prior = share = part / (part + (1 - self.prevalence) * share_wrong)
        for _ in range(_ROUNDS):
            probable = float((share * of_judged / (share * of_judged + 1 - share)).mean())
            share = float(np.clip((probable + _PRIOR_WEIGHT * prior) / (1 + _PRIOR_WEIGHT), 1e-5, 0.95))
        return np.asarray(share * ratio / (share * ratio + 1 - share))

    def _wrong_here(self, scores: np.ndarray) -> np.ndarray:
        """The density of wrong peaks, moved if it floats to where the tomogram's peaks lie."""
        if not self.floating or len(scores) < _FEWEST_WRONG:
            return self.wrong
        z = fisher_z(scores)
        right = min(_OF_THESE * float(np.mean(z >= _quantile(self.right, _RIGHT_FROM))), _MOST_RIGHT)
        low, high = np.quantile(z, np.array([_LOWER, _UPPER]) * (1 - right))
        low_there, high_there = _quantile(self.wrong, _LOWER), _quantile(self.wrong, _UPPER)
        width = float(np.clip((high - low) / max(high_there - low_there, 1e-6), *_WIDTHS))
        return np.interp(low_there + (Z_GRID - low) / width, Z_GRID, self.wrong, left=0, right=0) / width


def _quantile(density: np.ndarray, share: float) -> float:
    """Fisher's z below which a share of a density on `Z_GRID` lies."""
    sums = np.cumsum(density)
    return float(np.interp(share * sums[-1], sums, Z_GRID))


def fisher_z(scores: np.ndarray) -> np.ndarray:
    """artanh of similarities: where they crowd near one, it spreads them (Fisher 1915)."""
    return np.asarray(np.arctanh(np.clip(scores, -ALMOST_ONE, ALMOST_ONE)))


def false_discovery_rates(scores: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Expected share of wrong peaks among those that score at least as much as each, (n,) float32, never rising with
    the score."""
    order = np.argsort(-scores, kind="stable")
    rates = 1 - np.cumsum(probabilities[order]) / np.arange(1, len(order) + 1)
    out = np.empty(len(order), np.float32)
    out[order] = np.clip(np.minimum.accumulate(rates[::-1])[::-1], 0, 1)
    return out


def expected_f1(scores: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F1 expected at each threshold, from the rates of all peaks: (thresholds falling, F1), both (n,).

    What is right among all peaks of the list counts as all there is.
    """
    order = np.argsort(-scores, kind="stable")
    count = np.arange(1, len(order) + 1)
    right = count * (1 - rates[order].astype(float))
    return scores[order], 2 * right / (count + max(float(right[-1:].sum()), 1.0))


def threshold_of_best_f1(scores: np.ndarray, rates: np.ndarray) -> float:
    """The score at which the expected F1 is highest; 1 without peaks."""
    if not len(scores):
        return 1.0
    thresholds, f1 = expected_f1(scores, rates)
    return float(thresholds[int(f1.argmax())])


def threshold_of_rate(scores: np.ndarray, rates: np.ndarray, rate: float) -> float:
    """The lowest score at which no more than `rate` of the picks are expected to be wrong; above all where none is."""
    enough = scores[rates <= rate]
    return (
        float(enough.min()) if len(enough) else float(np.nextafter(np.float32(max(scores, default=1.0)), np.float32(2)))
    )


def _density(scores: np.ndarray, width: float) -> np.ndarray:
    # Scores beyond the grid count at its ends: a density that lies off it would be none.
    z = np.clip(fisher_z(scores), Z_GRID[0], Z_GRID[-1])
    if len(z) > _MOST:
        z = np.quantile(z, np.linspace(0, 1, _MOST))
    if np.ptp(z) < 1e-6:  # equal scores have no width of their own
        z = z + np.linspace(-0.01, 0.01, len(z))
    return np.asarray(gaussian_kde(z, width)(Z_GRID), np.float32)
