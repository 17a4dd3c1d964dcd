"""How many matches are false, from how a target's matches lie beside those of its decoys, twice.

By counting: a molecule that is not there has as many matches above a score as its decoys have on average. And by a fit: of
the two the more cautious counts, which on tomograms of another simulator promised about what was true (benchmarks/foreign.py;
the fit alone was too hopeful with small molecules, counting alone with few decoys).

What is compared is x, Fisher's z of the verified score over what chance comes to, in which molecules of about one size are
alike. Wrong matches of a target are spread as the decoys' are, in the same tomogram; right ones lie about a middle of their
own, within half of what chance comes to (0.4 to 0.8 measured over molecules of 70 to 2,700 kDa in tomograms of another simulator).
Both are normal distributions, the wrong one cut off below; place, width and number of either are fitted to the target's matches by the
maximum of the posterior of a Poisson process, with the decoys' as priors. No simulation takes part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from tomotwin_core.picking.discovery import false_discovery_rates

# Decoys count by how near their deviation and their mass are to the target's (natural logarithm): noise is as strong as a light
# molecule, and not as a heavy one.
_ALIKE = 0.35
# The fit is cut off at this quantile of the decoys' matches.
_CUT = 0.5
_FEWEST = 3
# Spread of the wrong ones' middle and (logarithm of) width about the decoys', and of their number.
_MIDDLE, _WIDTH, _NUMBER = 0.4, 0.2, 0.7
# Width of the right ones, and the spread of its logarithm; how many there are, likewise.
_RIGHT, _RIGHT_SPREAD = 0.6, 0.3
_MANY, _MANY_SPREAD = 10.0, 1.5
# By so much (log posterior) must a fit with right ones be better than one without to be as probable.
_DOUBT = 3.0
# Right ones lie so many widths of wrong ones above their middle, softly.
_APART, _SOFTLY = 1.5, 0.3


def comparable(score: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Verified scores as x."""
    return np.asarray(np.arctanh(np.clip(np.asarray(score, float), 0, 0.999)) / deviation)


def false_discovery(
    x: NDArray[np.float64],
    deviation: float,
    decoys: Sequence[tuple[NDArray[np.float64], float, float]],
    share: float = 1.0,
) -> NDArray[np.float32]:
    """The share of false ones expected among the matches whose x (n,) is at least each one's, (n,), never rising with x.

    deviation : of the target.  decoys : of each decoy its x, its deviation, and its mass over the target's.  share : of the tomogram in which the decoys
    were looked for.
    """
    fitted = false_discovery_rates(x, probabilities(x, deviation, decoys, share))
    return np.asarray(np.maximum(fitted, _counted(x, deviation, decoys, share)), np.float32)


def _counted(
    x: NDArray[np.float64], deviation: float, decoys: Sequence[tuple[NDArray[np.float64], float, float]], share: float
) -> NDArray[np.float64]:
    if not decoys or not sum(len(one) for one, *_ in decoys):
        return np.ones(len(x))
    everyone, weight = _together(deviation, decoys)
    falling = np.argsort(-everyone)
    expected = np.concatenate([[0.0], np.cumsum(weight[falling])]) / share
    order = np.argsort(-x, kind="stable")
    above = np.searchsorted(-everyone[falling], -x[order], side="right")
    rate = np.minimum(expected[above] / np.arange(1, len(x) + 1), 1.0)
    rates = np.empty(len(x))
    rates[order] = np.minimum.accumulate(rate[::-1])[::-1]
    return rates


def _together(
    deviation: float, decoys: Sequence[tuple[NDArray[np.float64], float, float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All decoys' x, and their weights, in which they are one decoy."""
    each = [np.exp(-0.5 * ((np.log(d / deviation) / _ALIKE) ** 2 + (np.log(m) / _ALIKE) ** 2)) for _, d, m in decoys]
    weight = np.concatenate([np.full(len(one), w) for (one, *_), w in zip(decoys, each, strict=True)])
    return np.concatenate([one for one, *_ in decoys]), weight / max(sum(each), 1e-12)


def probabilities(
    x: NDArray[np.float64],
    deviation: float,
    decoys: Sequence[tuple[NDArray[np.float64], float, float]],
    share: float = 1.0,
) -> NDArray[np.float64]:
    """That each match is right, (n,), never falling with its x (n,).

    decoys : of each decoy its x, its deviation, and its mass over the target's.  share : of the tomogram in which the decoys were looked for.
    """
    nothing = np.zeros(len(x))
    if len(x) < _FEWEST or not sum(len(one) for one, *_ in decoys):
        return nothing
    everyone, weight = _together(deviation, decoys)
    order = np.argsort(everyone)
    cumulated = np.cumsum(weight[order]) / weight.sum()
    cut = float(everyone[order][min(int(np.searchsorted(cumulated, _CUT)), len(order) - 1)])
    above = x[x > cut]
    if len(above) < _FEWEST:
        return nothing
    over = everyone > cut
    middle, log_width = _cut_off_normal(everyone[over], weight[over], cut)
    number = max(float(weight[over].sum()) / share, 1.0)
    fit, there = _fitted(above, cut, middle, log_width, number)
    many_wrong, middle_wrong, width_wrong, many, middle_right, width_right = fit
    wrong = (
        many_wrong
        + norm.logpdf(x, middle_wrong, np.exp(width_wrong))
        - norm.logsf(cut, middle_wrong, np.exp(width_wrong))
    )
    # Above their middle right ones are as dense as at it: nothing is too good to be right.
    right = many + norm.logpdf(np.minimum(x, middle_right), middle_right, np.exp(width_right))
    probability = np.where(x > cut, there * expit(np.clip(right - wrong, -50, 50)), 0.0)
    rising = np.argsort(x, kind="stable")
    probability[rising] = np.maximum.accumulate(probability[rising])
    return np.asarray(probability)


def _cut_off_normal(x: NDArray[np.float64], weight: NDArray[np.float64], cut: float) -> tuple[float, float]:
    """Middle and logarithm of the width of a normal distribution of which only what lies above `cut` is seen."""
    if not len(x):
        return cut, float(np.log(0.6))
    share = weight / weight.sum()

    def loss(parameters: NDArray[np.float64]) -> float:
        middle, log_width = parameters
        width = np.exp(log_width)
        seen = share @ (norm.logpdf(x, middle, width) - norm.logsf(cut, middle, width))
        return float(-30 * seen + (middle - cut) ** 2 / 2 + ((log_width - np.log(0.6)) / 0.5) ** 2 / 2)

    found = minimize(loss, [cut, np.log(0.5)], method="L-BFGS-B", bounds=[(cut - 2, cut + 1), (-2, 0.7)]).x
    return float(found[0]), float(found[1])


def _fitted(
    above: NDArray[np.float64], cut: float, middle: float, log_width: float, number: float
) -> tuple[NDArray[np.float64], float]:
    """Number (logarithm), middle and width (logarithm) of the wrong ones, then of the right ones; and how probable it is that
    there are any right ones at all."""

    def unexpected_wrong(many_wrong: float, middle_wrong: float, width_wrong: float) -> float:
        place = ((middle_wrong - middle) / _MIDDLE) ** 2 + ((width_wrong - log_width) / _WIDTH) ** 2
        return float(place + ((many_wrong - np.log(number)) / _NUMBER) ** 2)

    def loss_of_wrong(parameters: NDArray[np.float64]) -> float:
        many_wrong, middle_wrong, width_wrong = parameters
        cut_off = norm.logsf(cut, middle_wrong, np.exp(width_wrong))
        wrong = many_wrong + norm.logpdf(above, middle_wrong, np.exp(width_wrong)) - cut_off
        return float(np.exp(many_wrong) - wrong.sum() + unexpected_wrong(*parameters) / 2)

    def loss(parameters: NDArray[np.float64]) -> float:
        many_wrong, middle_wrong, width_wrong, many, middle_right, width_right = parameters
        cut_off = norm.logsf(cut, middle_wrong, np.exp(width_wrong))
        wrong = many_wrong + norm.logpdf(above, middle_wrong, np.exp(width_wrong)) - cut_off
        right = many + norm.logpdf(above, middle_right, np.exp(width_right))
        expected = np.exp(many_wrong) + np.exp(many) * norm.sf(cut, middle_right, np.exp(width_right))
        apart = min(middle_right - middle_wrong - _APART * np.exp(width_wrong), 0.0)
        unexpected = (
            unexpected_wrong(many_wrong, middle_wrong, width_wrong) + ((many - np.log(_MANY)) / _MANY_SPREAD) ** 2
            + ((width_right - np.log(_RIGHT)) / _RIGHT_SPREAD) ** 2 + (apart / _SOFTLY) ** 2
        )  # fmt: skip
        return float(expected - np.logaddexp(wrong, right).sum() + unexpected / 2)

    bounds = [(-3, 14), (cut - 3, cut + 2), (-2, 0.9), (-3, 10), (cut, 60), (-2, 1)]
    fits = []
    for start in np.quantile(above, [0.5, 0.7, 0.85, 0.95]):
        for part in (0.1, 0.5):
            numbers = np.log([len(above) * (1 - part) + 0.5, len(above) * part + 0.5])
            right = max(float(start), middle + 1.2)
            first = [numbers[0], middle, log_width, numbers[1], right, np.log(_RIGHT)]
            fits.append(minimize(loss, first, method="L-BFGS-B", bounds=bounds))
    best = min(fits, key=lambda fit: fit.fun)
    without = minimize(loss_of_wrong, [np.log(len(above)), middle, log_width], method="L-BFGS-B", bounds=bounds[:3])
    return np.asarray(best.x), float(expit(without.fun - best.fun - _DOUBT))
