"""From peaks to picks: which score is enough.

A target made from a structure brings the threshold that was best in its simulated tomograms. One made from positions has
none; then the threshold comes from the null distribution: most peaks of a tomogram are not the target, and after Fisher's
transform (z = artanh of a correlation, Fisher 1915) their scores are spread about evenly around their median. Four robust
deviations above it is enough.
"""

from __future__ import annotations

import numpy as np

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.errors import UserError

_DEVIATIONS = 4.0
_FEWEST_PEAKS = 20
_ALMOST_ONE = 1.0 - 1e-6


def pick(
    peaks: Coordinates, threshold: float | None = None, calibrated: dict[str, float] | None = None
) -> tuple[Coordinates, dict[str, float]]:
    """Keep the peaks at or above the threshold.

    threshold : one value for all targets, or None for each target's own: the one in `calibrated`, else the null
    distribution's. Returns the picks and the threshold used for each label.
    """
    if threshold is not None and not -1.0 <= threshold <= 1.0:
        raise UserError(f"threshold {threshold}: similarities lie within -1 to 1")
    used: dict[str, float] = {}
    keep = np.zeros(len(peaks), bool)
    for label in np.unique(peaks.label):
        own = peaks.label == label
        value = threshold
        if value is None:
            value = (calibrated or {}).get(str(label), float("nan"))
        if not np.isfinite(value):
            value = null_threshold(peaks.score[own])
        used[str(label)] = float(value)
        keep |= own & (peaks.score >= value)
    return peaks.select(keep), used


def null_threshold(scores: np.ndarray) -> float:
    """Median plus four robust deviations of the peaks' scores after Fisher's transform; with too few peaks for that,
    half-way from their median to the best."""
    if len(scores) == 0:
        return 1.0
    if len(scores) < _FEWEST_PEAKS:
        return (float(np.median(scores)) + float(scores.max())) / 2
    transformed = np.arctanh(np.clip(scores, -_ALMOST_ONE, _ALMOST_ONE))
    middle = float(np.median(transformed))
    spread = 1.4826 * float(np.median(np.abs(transformed - middle)))
    return min(float(np.tanh(middle + _DEVIATIONS * spread)), float(scores.max()))
