"""What part of a tomogram's own highest peaks is right, from how they lie: two normal distributions with strong priors.

Within one tomogram the scores of a target's right peaks (Fisher's z) are close to normal and narrow; what simulation does not
know is where they lie, which differs between species and tomograms by as much as they are wide. Of the wrong peaks only
the highest matter, and these look like the tail of a normal distribution cut off at the bottom. So both are fitted to the peaks
above a cut well below where right ones are expected, by the maximum of the posterior of a Poisson process: place and width of
either, and how many there are, with priors for all but the number of wrong ones.

In a simulation of a whole crowd right scores are spread wider than in any one tomogram, and wrong ones have a longer tail than
competition between targets leaves them. With many copies the fit knows better; with few the priors hold it. The widths
and spreads below are those of 123 held-out and 229 trained species' references in simulated tomograms (benchmarks/accuracy.py, seeds
77 and 101); the sets 103, 104 and 105 had no part in them.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

# Fisher's z below the expected middle of right peaks at which the fit is cut off.
_CUT = 0.8
_FEWEST = 3
# How far the middle of right peaks lies from where it is expected, as a standard deviation; that of the tail's middle from the cut.
_MIDDLE_SPREAD, _WRONG_MIDDLE_SPREAD = 0.2, 0.3
# Standard deviations of right peaks and of the tail of wrong ones, and how far their logarithms scatter.
_RIGHT, _RIGHT_SPREAD = 0.22, 0.3
_WRONG, _WRONG_SPREAD = 0.35, 0.3
# Beforehand so many right ones, within a factor of e to the power of the second.
_MANY, _MANY_SPREAD = 10.0, 1.5
# Shares of right peaks that the fit starts from.
_STARTS = (0.1, 0.6)


def probabilities(z: np.ndarray, middle: float) -> np.ndarray | None:
    """That each peak is right, (n,), never falling with its Fisher's z (n,); 0 below the cut. None where fewer than three lie
    above the cut: that is nothing to fit to.

    middle : where right peaks are expected.
    """
    z = np.asarray(z, float)  # the fit's slopes are differences: in single precision it stops where it starts
    cut = middle - _CUT
    above = z[z > cut]
    if len(above) < _FEWEST:
        return None
    prior = np.array(
        [
            [0.0, cut, np.log(_WRONG), np.log(_MANY), middle, np.log(_RIGHT)],
            [np.inf, _WRONG_MIDDLE_SPREAD, _WRONG_SPREAD, _MANY_SPREAD, _MIDDLE_SPREAD, _RIGHT_SPREAD],
        ]
    )
    bounds = [(-3, 14), (cut - 2, cut + 1.5), (-3, 0.7), (-3, 10), (middle - 1, middle + 1.2), (-3, 0)]
    fits = []
    for share in _STARTS:
        start = prior[0].copy()
        start[[0, 3]] = np.log([len(above) * (1 - share) + 0.5, len(above) * share + 0.5])
        fits.append(minimize(_loss, start, (above, cut, prior), "L-BFGS-B", bounds=bounds))
    wrong, right = _log_densities(min(fits, key=lambda f: f.fun).x, z, cut)
    probability = np.where(z > cut, 1 / (1 + np.exp(np.clip(wrong - right, -50, 50))), 0.0)
    order = np.argsort(z, kind="stable")
    probability[order] = np.maximum.accumulate(probability[order])
    return probability


def _log_densities(parameters: np.ndarray, z: np.ndarray, cut: float) -> tuple[np.ndarray, np.ndarray]:
    """Log densities (n,) of wrong and of right peaks. parameters: number (log), middle and width (log) of the wrong ones, then
    of the right ones."""
    many_wrong, middle_wrong, width_wrong, many, middle, width = parameters
    wrong = norm.logpdf(z, middle_wrong, np.exp(width_wrong)) - norm.logsf(cut, middle_wrong, np.exp(width_wrong))
    return many_wrong + wrong, many + norm.logpdf(z, middle, np.exp(width))


def _loss(parameters: np.ndarray, above: np.ndarray, cut: float, prior: np.ndarray) -> float:
    """Minus the log posterior. prior (2, 6): means and standard deviations of the parameters."""
    wrong, right = _log_densities(parameters, above, cut)
    listed = norm.sf(cut, parameters[4], np.exp(parameters[5]))
    expected = np.exp(parameters[0]) + np.exp(parameters[3]) * listed
    return float(expected - np.logaddexp(wrong, right).sum() + (((parameters - prior[0]) / prior[1]) ** 2).sum() / 2)
