"""Whether protein is dark or bright in a tomogram, as far as the tomogram shows it.

Molecules, membranes and gold scatter more than the ice around them and fill less of the volume. So the values of a tomogram
that is smoothed to their size are lopsided towards what scatters: the skewness at 20 A, protein bright, was 0.5 to 2.1 in
fifteen simulated tomograms of eight styles, from two simulators, and 0 in a real lamella of 31 A voxels. Well below 0 the
contrast is the other one than was said.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tomotwin_core.remarks import remark
from tomotwin_core.tomogram.normalising import ModelTomogram

_SIGMA_VOX, _GROUND_VOX = 2.0, 6.0
_PLANES = 24
_INVERTED, _CHANCE_DEVIATIONS = -0.3, 5.0


def skewness(volume: ModelTomogram) -> tuple[float, float]:
    """The skewness of the smoothed middle planes, positive where the contrast is as was said, and what chance makes of it."""
    (z0, z1), (y0, y1), (x0, x1) = volume.specimen_box
    low = max((z0 + z1 - _PLANES) // 2, z0)
    planes = volume.slab(low, min(low + _PLANES, z1))[:, y0:y1, x0:x1]
    band = ndimage.gaussian_filter(planes, _SIGMA_VOX) - ndimage.gaussian_filter(planes, _GROUND_VOX)
    band = band[planes != 0].astype(np.float64)  # padding within the box says nothing
    if band.size < 2 or not band.std() > 0:
        return 0.0, 1.0
    independent = band.size / (4 * np.pi * _SIGMA_VOX**2) ** 1.5
    return float(((band - band.mean()) ** 3).mean() / band.std() ** 3), float(np.sqrt(6 / max(independent, 1.0)))


def tell_contrast(name: str, volume: ModelTomogram) -> None:
    """Say where a tomogram looks as if its contrast were the other one."""
    found, chance = skewness(volume)
    if found < min(_INVERTED, -_CHANCE_DEVIATIONS * chance):
        other = "bright" if volume.contrast == "dark" else "dark"
        remark(
            f"{name} looks as if protein were {other} in it and not {volume.contrast}: if so, give the contrast {other} (--contrast "
            f"{other}), or nothing will be found."
        )
