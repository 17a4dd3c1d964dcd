"""What of a mask volume counts as inside: said per kind of mask, refused where it is doubtful.

    one value, not 0              everything
    0 and one positive value      what is not 0
    whole numbers from 0 on, few  a segmentation: every label counts
    0 to a top value with edges   a soft or filtered mask, or probabilities: from half of the top value on
    bytes that begin at -128      bytes of IMOD's signed kind, which stand for 0 to 255: as above with 128 added
    bytes 0 and -1                bytes 0 and 255, read with a sign: 255 counts

Everything else, a tomogram for example, is no mask: two values neither of which is 0, values that are negative, many values
that are not gathered at 0 and at the top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomotwin_core.errors import UserError
from tomotwin_core.tomogram import TomogramSource

# A segmentation's labels are no larger; more than so many values are those of a soft edge, or of no mask.
_MOST_LABELS = 64
# A soft mask is within this share of its plateau of 0 or of the plateau almost everywhere, some of it outside, and of what
# is not outside so much is on the plateau: a tomogram's or a score map's voxels thin out towards their largest value.
_NEAR, _LEAST_NEAR, _LEAST_OUTSIDE, _LEAST_PLATEAU, _MOST_ABOVE = 0.05, 0.6, 0.005, 0.03, 0.2
# Filters ring: at a corner of a mask by so much of its height.
_RINGING = 0.4
_BINS = 400


@dataclass(frozen=True)
class Mask:
    """A mask volume of a tomogram's shape: inside are voxels of at least `inside_from` once `added` is added to them.

    kind : in words.
    """

    source: TomogramSource
    inside_from: float
    added: float = 0.0
    kind: str = ""

    @property
    def path(self) -> Path:
        return self.source.path

    def plane(self, z: int) -> NDArray[np.bool_]:
        """One plane, bool [y, x], True inside."""
        return np.asarray(self.source.slab(z, z + 1)[0] + np.float32(self.added) >= self.inside_from)


def opened_mask(source: TomogramSource) -> Mask:
    """What of a volume counts as inside.

    Raises
    ------
    UserError
        Where the volume is 0 everywhere, or is no mask of a kind that the module names.
    """
    path = source.path
    low, high, values = _values(source)
    mask = Mask(source, inside_from=np.nextafter(np.float32(0), np.float32(1)))
    if source.dtype.kind == "i" and source.dtype.itemsize == 1:
        if low == -128:
            mask = replace(mask, added=128.0, kind="bytes of IMOD, 128 less than meant; ")
        elif values is not None and set(values) == {0.0, -1.0}:
            return replace(mask, inside_from=1.0, added=0.0, source=_unsigned(source), kind="bytes 0 and 255")
    low, high = low + mask.added, high + mask.added
    values = None if values is None else values + mask.added
    if high == low == 0:
        raise UserError(f"{path} is 0 everywhere: voxels to be searched must not be 0.")
    if low == high > 0:
        return replace(mask, inside_from=high, kind=f"{mask.kind}{high:g} everywhere")
    if values is not None and len(values) == 2 and 0 not in values and min(abs(values)) > _NEAR * max(abs(values)):
        raise UserError(
            f"{path} holds the values {values[0]:g} and {values[1]:g} alone, and does not say which of them is inside: give a mask "
            "of 0 outside and 1 inside."
        )
    whole = values is not None and high <= _MOST_LABELS and bool((values == np.round(values)).all())
    if values is not None and whole and low == 0:
        return replace(mask, inside_from=1.0, kind=f"{mask.kind}{_named(values)}")
    if values is not None and len(values) == 2 and low == 0:
        return replace(mask, inside_from=high, kind=f"{mask.kind}0 and {high:g}")
    refused = (
        f"{path} is no mask: its values from {low:g} to {high:g} are not gathered at 0 and at a height; give a volume of 0 outside "
        "and 1 inside."
    )
    if high <= 0 or -low > _RINGING * high:
        raise UserError(refused)
    height, outside, plateau, above = _plateau(mask, low, high)
    if (
        outside < _LEAST_OUTSIDE
        or outside + plateau < _LEAST_NEAR
        or plateau < _LEAST_PLATEAU * (1 - outside)
        or above > _MOST_ABOVE * (1 - outside)
    ):
        raise UserError(refused)
    return replace(mask, inside_from=height / 2, kind=f"{mask.kind}values from {height / 2:.2g} on")


def _values(source: TomogramSource) -> tuple[float, float, NDArray[np.float64] | None]:
    """Least and largest value, and all values in order where they are not many."""
    low, high = np.inf, -np.inf
    found: NDArray[np.float64] | None = np.empty(0)
    for z in range(source.shape[0]):
        plane = source.slab(z, z + 1)[0]
        low, high = min(low, float(plane.min())), max(high, float(plane.max()))
        if found is not None:
            # A line tells a mask from a volume of noise at once; sorting whole planes of that takes long.
            few = len(np.unique(plane[len(plane) // 2])) <= _MOST_LABELS
            found = np.union1d(found, np.unique(plane)) if few else None
            found = found if found is not None and len(found) <= _MOST_LABELS else None
    return low, high, found


def _plateau(mask: Mask, low: float, high: float) -> tuple[float, float, float, float]:
    """The height at which most of the higher values lie; which shares of the voxels are near 0, near that height, above it."""
    counts = np.zeros(_BINS, np.int64)
    for z in range(mask.source.shape[0]):
        plane = mask.source.slab(z, z + 1)[0] + np.float32(mask.added)
        counts += np.histogram(plane, _BINS, (low, high))[0]
    middle = low + (np.arange(_BINS) + 0.5) * (high - low) / _BINS
    height = float(middle[np.argmax(np.where(middle > high / 2, counts, -1))])
    shares = counts / counts.sum()
    near = [float(shares[np.abs(middle - at) <= _NEAR * height].sum()) for at in (0.0, height)]
    return height, near[0], near[1], float(shares[middle > (1 + _NEAR) * height].sum())


def _unsigned(source: TomogramSource) -> TomogramSource:
    unsigned = source.voxels.view(np.uint8)
    return replace(source, dtype=unsigned.dtype, _data=unsigned)


def _named(values: NDArray[np.float64]) -> str:
    return f"0 and {values[1]:g}" if len(values) == 2 else f"labels 1 to {values[-1]:g}"
