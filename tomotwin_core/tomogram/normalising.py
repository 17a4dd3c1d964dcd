"""Local normalisation: every voxel minus the mean around it, over the deviation around it.

The mean and the deviation are those of the network's window (37 x 37 x 37 voxels at 10 A) centred on the voxel, so a
window cut from the volume and the volume as a whole are normalised alike (design rule 1), and gradients of ice
thickness or grey level do not reach the network. Beyond its faces the volume is mirrored.

Both averages are box sums. In a plane scipy's running box filter makes them; along z the sum over the window rolls from
plane to plane. All of it is in float64: the variance is a small difference of large numbers wherever a tomogram has an
offset. One plane is filtered once and 37 are kept, whatever the height of the volume.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from tomotwin_core.tomogram.padding import Specimen
from tomotwin_core.tomogram.resampling import MODEL_VOXEL_SIZE_A, Resampled
from tomotwin_core.tomogram.source import TomogramSource, Voxels

WINDOW = 37
CLIP = 6.0

# The deviation is never taken smaller than this part of its usual value: else padding and vacuum, where it is about 0,
# would be blown up to full contrast.
_FLOOR_FRACTION = 0.1
# Judged in boxes smaller than the window, of which fewer lie across the step from the volume to its padding.
_FLOOR_BOX = 12
_FLOOR_LAYERS = 8
_ROUNDING = 1e-5


def normalise_local(
    volume: NDArray[np.float32],
    window: int = WINDOW,
    std_floor: float | None = None,
    clip: float = CLIP,
    padded: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Subtract the local mean and divide by the local deviation, then clip.

    Parameters
    ----------
    volume : float32 [z, y, x]
        A whole volume, or a slab of one. A slab with ``window // 2`` more planes on each side than wanted, and the
        whole volume's `std_floor`, gives in its middle the same values as the whole volume, to float32 rounding.
    window : int
        Side of the box, odd, in voxels.
    std_floor : float, optional
        The smallest deviation to divide by; `local_std_floor` of the volume by default.
    clip : float
        Values beyond +-clip deviations (fiducials, hot voxels) are set to it.
    padded : bool [z, y, x], optional
        What is no specimen: it has no part in means and deviations, and becomes 0.

    Returns
    -------
    float32 [z, y, x], same shape; contrast as it came.
    """
    if window % 2 != 1 or window < 1:
        raise ValueError(f"the window must be odd and positive, not {window}")
    data = np.asarray(volume, dtype=np.float32)
    floor = local_std_floor(data) if std_floor is None else std_floor
    floor = max(floor, float(np.finfo(np.float32).tiny))  # a constant volume has floor 0 and becomes 0, not NaN
    out = np.empty(data.shape, np.float32)
    for z, (mean, std) in enumerate(_local_statistics(data, window, padded)):
        out[z] = np.clip((data[z] - mean) / np.maximum(std, floor), -clip, clip)
    if padded is not None:
        out[padded] = 0.0
    return out


def local_std_floor(volume: NDArray[np.float32] | Voxels) -> float:
    """A tenth of the median deviation in small boxes: the smallest deviation `normalise_local` divides by.

    The boxes are disjoint and lie in at most eight layers spread over the height, so that of a large tomogram only a part
    is read for this. Boxes without any contrast (padding) do not count. Gives 0 where no box has contrast.
    """
    depth = volume.shape[0]
    thickness = min(_FLOOR_BOX, depth)
    layers = min(_FLOOR_LAYERS, depth // thickness)
    starts = np.linspace(0, depth - thickness, layers).round().astype(int) if layers > 1 else [(depth - thickness) // 2]
    kept = []
    for z0 in starts:
        slab = volume[z0 : z0 + thickness] if isinstance(volume, np.ndarray) else volume.slab(z0, z0 + thickness)
        boxes = _boxes(np.asarray(slab, np.float32))
        deviations = boxes.std(axis=0, dtype=np.float64)
        # Padding that has been interpolated or filtered is constant to rounding, not exactly.
        kept.append(deviations[deviations > _ROUNDING * np.abs(boxes).max(axis=0)])
    contrasts = np.concatenate(kept)
    return _FLOOR_FRACTION * float(np.median(contrasts)) if len(contrasts) else 0.0


@dataclass(frozen=True)
class ModelTomogram:
    """A tomogram as the network sees it: at the model's voxel size, locally normalised, protein bright.

    Attributes
    ----------
    source : TomogramSource or other Voxels
        The tomogram in its own voxels.
    contrast : {"dark", "bright"}
        Whether protein is dark in it (the usual convention for tomograms) or bright (maps).
    voxel_size_A : float
        The model's voxel size.
    window : int
        The model's window in voxels.
    """

    source: TomogramSource | Voxels
    contrast: Literal["dark", "bright"] = "dark"
    voxel_size_A: float = MODEL_VOXEL_SIZE_A
    window: int = WINDOW

    @cached_property
    def resampled(self) -> Resampled:
        """The same tomogram at the model's voxel size, not normalised, contrast as in the file."""
        return Resampled(self.specimen, self.voxel_size_A)

    @cached_property
    def specimen(self) -> Specimen:
        """The tomogram in its own voxels, its padding filled with the mean of what is none."""
        return Specimen(self.source)

    @cached_property
    def specimen_box(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """First voxel and that after the last along z, y, x of the box that holds the specimen, in model voxels."""
        ratio = self.source.voxel_size_A / self.voxel_size_A
        z, y, x = (
            (round(low * ratio), n if high == whole else min(round(high * ratio), n))
            for (low, high), whole, n in zip(self.specimen.box, self.source.shape, self.shape, strict=True)
        )
        return z, y, x

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) in model voxels."""
        return self.resampled.shape

    @cached_property
    def std_floor(self) -> float:
        """The smallest deviation divided by, the same for every slab."""
        return local_std_floor(self.resampled)

    def slab(self, z0: int, z1: int) -> NDArray[np.float32]:
        """Planes z0 up to z1 as float32 [z, y, x], the same values however the tomogram is cut into slabs."""
        halo = self.window // 2
        low, high = max(z0 - halo, 0), min(z1 + halo, self.shape[0])
        padded = self._padded(low, high)
        planes = normalise_local(self.resampled.slab(low, high), self.window, self.std_floor, padded=padded)
        wanted = planes[z0 - low : z1 - low]
        return -wanted if self.contrast == "dark" else wanted

    def _padded(self, z0: int, z1: int) -> NDArray[np.bool_] | None:
        """Where planes z0 up to z1 are no specimen, bool [z, y, x]; None where all is."""
        nearest = [
            np.minimum(np.round(np.arange(n) * self.voxel_size_A / self.source.voxel_size_A).astype(int), last - 1)
            for n, last in zip(self.shape, self.source.shape, strict=True)
        ]
        planes = nearest[0][z0:z1]
        found = np.zeros((z1 - z0, *self.shape[1:]), bool)
        for number, z in enumerate(planes):
            padded = self.specimen.slab_and_padding(int(z), int(z) + 1)[1]
            if padded is not None:
                found[number] = padded[0][np.ix_(nearest[1], nearest[2])]
        return found if found.any() else None


def _boxes(slab: NDArray[np.float32]) -> NDArray[np.float32]:
    """A slab [z, y, x] as whole boxes side by side in the plane, (voxels of a box, boxes); a rest at the rim is left."""
    z, y, x = slab.shape
    height, width = min(_FLOOR_BOX, y), min(_FLOOR_BOX, x)
    rows, columns = y // height, x // width
    whole = slab[:, : rows * height, : columns * width].reshape(z, rows, height, columns, width)
    return whole.transpose(0, 2, 4, 1, 3).reshape(-1, rows * columns)


def _local_statistics(
    data: NDArray[np.float32], window: int, padded: NDArray[np.bool_] | None = None
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Mean and deviation over window^3 boxes, plane by plane, each (y, x); of what is not padded alone."""
    depth, half = data.shape[0], window // 2
    offset = float(data.mean(dtype=np.float64))  # near 0, squares lose fewer digits
    kept: dict[int, NDArray[np.float64]] = {}

    def plane(z: int) -> NDArray[np.float64]:
        z = _mirrored_about_face(z, depth)
        if z not in kept:
            values = data[z].astype(np.float64) - offset
            if padded is None:
                sums = np.stack((values, values * values))
            else:
                counts = (~padded[z]).astype(np.float64)
                sums = np.stack((values * counts, values * values * counts, counts))
            for axis in (1, 2):
                uniform_filter1d(sums, window, axis, output=sums, mode="reflect")
            kept[z] = sums
        return kept[z]

    total = np.zeros((2 if padded is None else 3, *data.shape[1:]))
    for z in range(-half, half + 1):
        total += plane(z)
    # Of a box of the window's size one voxel is the least that counts; less is rounding.
    least = 0.5 / window**3
    for z in range(depth):
        means = total / window
        mean, square = means[:2] if padded is None else means[:2] / np.maximum(means[2], least)
        yield mean + offset, np.sqrt(np.maximum(square - mean * mean, 0.0))
        if z + 1 < depth:
            total += plane(z + 1 + half)
            total -= plane(z - half)
            if depth > window:
                kept.pop(z - half, None)


def _mirrored_about_face(index: int, n: int) -> int:
    """An index beyond the ends, mirrored about the volume's face as scipy's mode "reflect" does: -1 is 0, n is n - 1."""
    folded = index % (2 * n)
    return min(folded, 2 * n - 1 - folded)
