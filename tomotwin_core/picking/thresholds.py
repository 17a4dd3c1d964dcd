"""From peaks to picks: which score is enough.

Where the peaks carry the false-discovery rate expected at their score, the threshold is the score at which the expected F1
is highest in this tomogram, or the lowest at which no more than a wanted share is expected to be false. Else a target made
from a structure brings the threshold that was best in its simulated tomograms. One without either has the null
distribution: most peaks of a tomogram are not the target, and after Fisher's transform (z = artanh of a correlation,
Fisher 1915) their scores are spread about evenly around their median. Four robust deviations above it is enough.
"""

from __future__ import annotations

import numpy as np

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.picking.discovery import fisher_z, threshold_of_best_f1, threshold_of_rate

_DEVIATIONS = 4.0
_FEWEST_PEAKS = 20


def pick(
    peaks: Coordinates,
    threshold: float | None = None,
    calibrated: dict[str, float] | None = None,
    fdr: float | None = None,
) -> tuple[Coordinates, dict[str, float]]:
    """Keep the peaks at or above the threshold.

    threshold : one value for all targets, or None for each target's own.  fdr : the share of false picks that is accepted,
    instead of the best expected F1.  calibrated : thresholds from simulation, for peaks without a rate of their own.
    Returns the picks and the threshold used for each label.
    """
    if threshold is not None and not -1.0 <= threshold <= 1.0:
        raise UserError(f"threshold {threshold}: similarities lie within -1 to 1")
    if fdr is not None and not 0.0 < fdr < 1.0:
        raise UserError(f"--fdr {fdr:g}: give the share of picks that may be false, within 0 to 1")
    used: dict[str, float] = {}
    keep = np.zeros(len(peaks), bool)
    for label in np.unique(peaks.label):
        own = peaks.label == label
        value = threshold
        if value is None:
            value = _own_threshold(peaks.select(own), (calibrated or {}).get(str(label), float("nan")), fdr)
        used[str(label)] = float(value)
        keep |= own & (peaks.score >= value)
    return peaks.select(keep), used


def _own_threshold(peaks: Coordinates, calibrated: float, fdr: float | None) -> float:
    """The threshold of one target in one tomogram."""
    if peaks.fdr is not None and np.isfinite(peaks.fdr).all():
        if fdr is not None:
            return threshold_of_rate(peaks.score, peaks.fdr, fdr)
        return threshold_of_best_f1(peaks.score, peaks.fdr)
    if fdr is not None:
        raise UserError(
            f"--fdr {fdr:g}: the peaks of {peaks.label[0]} in {peaks.tomogram} carry no false-discovery rate; locate them with "
            "a reference whose scores are calibrated, or give --threshold"
        )
    return calibrated if np.isfinite(calibrated) else null_threshold(peaks.score)


def null_threshold(scores: np.ndarray) -> float:
    """Median plus four robust deviations of the peaks' scores after Fisher's transform; with too few peaks for that,
    half-way from their median to the best."""
    if len(scores) == 0:
        return 1.0
    if len(scores) < _FEWEST_PEAKS:
        return (float(np.median(scores)) + float(scores.max())) / 2
    transformed = fisher_z(scores)
    middle = float(np.median(transformed))
    spread = 1.4826 * float(np.median(np.abs(transformed - middle)))
    return min(float(np.tanh(middle + _DEVIATIONS * spread)), float(scores.max()))
