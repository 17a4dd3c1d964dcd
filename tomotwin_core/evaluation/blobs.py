"""A difference-of-Gaussians blob finder: the plain baseline a particle picker has to beat.

It finds whatever is compact, bright and of about the right size, and cannot tell one species from another.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import cKDTree


def find_blobs(
    volume: NDArray[np.float32], sigma_small_vox: float, sigma_large_vox: float, min_distance_vox: float, n: int
) -> NDArray[np.float64]:
    """The `n` brightest blobs of a volume.

    Parameters
    ----------
    volume : float32 [z, y, x]
        Protein bright; held in memory as a whole.
    sigma_small_vox, sigma_large_vox : float
        Widths of the two Gaussians; the response is the volume smoothed by the small one minus that by the large one.
    min_distance_vox : float
        No two blobs are closer than this; of two that would be, the stronger one stays.
    n : int
        How many at most.

    Returns
    -------
    float64 (N, 3)
        x, y, z in voxels, strongest first; N may be smaller than n.
    """
    data = np.asarray(volume, np.float32)
    response = gaussian_filter(data, sigma_small_vox) - gaussian_filter(data, sigma_large_vox)
    peaks = np.argwhere((response == maximum_filter(response, size=3)) & (response > 0))
    strength = response[tuple(peaks.T)]
    peaks = peaks[np.argsort(-strength, kind="stable")]
    if not len(peaks):
        return np.empty((0, 3))
    tree = cKDTree(peaks)
    suppressed = np.zeros(len(peaks), dtype=bool)
    kept: list[int] = []
    for index in range(len(peaks)):
        if len(kept) == n:
            break
        if not suppressed[index]:
            kept.append(index)
            # Just below the distance, so that two blobs exactly that far apart both stay.
            suppressed[tree.query_ball_point(peaks[index], min_distance_vox * (1 - 1e-9))] = True
    return peaks[kept][:, ::-1].astype(np.float64)
