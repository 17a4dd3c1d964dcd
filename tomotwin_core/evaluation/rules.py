"""When a pick is right: close enough to a true centre, or its box overlapping the true one enough.

The default is a distance of half the particle's radius, 20 A at least (2 voxels at the model's 10 A); the other is the
TomoTwin paper's, boxes of one diameter that overlap with an IoU above 0.6.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomotwin_core.errors import UserError
from tomotwin_core.evaluation.matching import (
    PAPER_MIN_IOU,
    box_rightness_in_order,
    match,
    match_boxes,
    rightness_in_order,
)

MIN_TOLERANCE_A = 20.0
TOLERANCE_SHARE = 0.25


@dataclass(frozen=True)
class Rule:
    """The criterion of an evaluation.

    Attributes
    ----------
    boxes : bool
        Whether the overlap of boxes decides, rather than the distance.
    share : float
        Largest distance as a share of the particle's diameter; it is `MIN_TOLERANCE_A` at least.
    min_iou : float
        Boxes must overlap by more than this share of their union.
    """

    boxes: bool = False
    share: float = TOLERANCE_SHARE
    min_iou: float = PAPER_MIN_IOU

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"a tolerance of {self.share:g} of the diameter: give a share above 0 and up to 1")
        if not 0 < self.min_iou < 1:
            raise UserError(f"an overlap (IoU) of {self.min_iou:g}: give a share between 0 and 1")

    def tolerance_A(self, diameter_A: float) -> float:
        """The distance up to which a pick is right; where the diameter is unknown (NaN) the least."""
        return MIN_TOLERANCE_A if math.isnan(diameter_A) else max(self.share * diameter_A, MIN_TOLERANCE_A)

    def match(self, picks: ArrayLike, truth: ArrayLike, diameter_A: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Pairs of picks and true positions (N, 3), both in A, as `matching.match`."""
        if self.boxes:
            return match_boxes(picks, truth, _known(diameter_A), self.min_iou)
        return match(picks, truth, self.tolerance_A(diameter_A))

    def rightness_in_order(self, ranked_picks: ArrayLike, truth: ArrayLike, diameter_A: float) -> NDArray[np.bool_]:
        """Which of the picks (N, 3), from the best to the worst, adds a match; positions in A."""
        if self.boxes:
            return box_rightness_in_order(ranked_picks, truth, _known(diameter_A), self.min_iou)
        return rightness_in_order(ranked_picks, truth, self.tolerance_A(diameter_A))

    def described(self) -> str:
        """The rule in words."""
        if self.boxes:
            return f"boxes overlap with IoU > {self.min_iou:g}"
        return f"within {self.share:g} of the diameter, {MIN_TOLERANCE_A:g} A at least"


def _known(diameter_A: float) -> float:
    if math.isnan(diameter_A):
        raise UserError(
            "a box has the particle's diameter, and neither the truth nor the picks have one: give it there"
        )
    return diameter_A
