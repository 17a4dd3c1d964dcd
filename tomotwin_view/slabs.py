"""What the slices show: planes of a volume averaged along one axis, smoothed, and the grey levels for them.

Orientations are numbered by the axis they look along: 0 looks along x (a yz slice), 1 along y (xz), 2 along z (xy).
"""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np


def slab(volume: np.ndarray, along: int, position: int, thickness: int = 1, smoothing: int = 0) -> np.ndarray:
    """Average of planes around a position, as float32 [row, column].

    Parameters
    ----------
    volume : array [z, y, x]
        Only the planes wanted are read of it.
    along : int
        0 gives [y, z], 1 gives [z, x], 2 gives [y, x]: y and z stay upright beside and under an xy slice.
    position : int
        In voxels along that axis.
    thickness : int
        Number of planes; fewer at the rim.
    smoothing : int
        How often the image is smoothed with the binomial 1-2-1 in both directions; twice is about a Gaussian of one
        voxel.
    """
    axis = 2 - along
    start = max(position - thickness // 2, 0)
    index: list = [slice(None)] * 3
    index[axis] = slice(start, max(position - thickness // 2 + thickness, start + 1))
    image = np.asarray(volume[tuple(index)], dtype=np.float32).mean(axis=axis)
    image = image.T if along == 0 else image
    for _ in range(smoothing):
        for direction in (0, 1):
            image = _binomial(image, direction)
    return np.nan_to_num(image)


def grey_range(volume: np.ndarray, thickness: int, smoothing: int) -> Tuple[float, float]:
    """Black and white for a tomogram: the first and 99th percentile of xy slabs at a quarter, half and three quarters."""
    depth = volume.shape[0]
    heights = sorted({depth // 4, depth // 2, 3 * depth // 4})
    values = np.concatenate([slab(volume, 2, z, thickness, smoothing)[::2, ::2].ravel() for z in heights])
    low, high = np.percentile(values, (1, 99))
    return float(low), float(high) if high > low else float(low) + 1.0


class LatestOnly:
    """Works on what was asked for last, one job at a time per key, beside the thread that draws.

    A slice along x touches every page of a tomogram's file; on a slow disk that must not freeze the window, and what
    was asked for in between while scrolling is no longer wanted.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=3)
        self._running: Dict[Any, Future[Any]] = {}
        self._waiting: Dict[Any, Callable[[], Any]] = {}

    def ask(self, key: Any, job: Callable[[], Any]) -> None:
        if key in self._running:
            self._waiting[key] = job
        else:
            self._running[key] = self._pool.submit(job)

    def answers(self) -> Dict[Any, Any]:
        """Results that have come since the last call, by key; a job's exception is raised here."""
        done = {key: future for key, future in self._running.items() if future.done()}
        for key in done:
            del self._running[key]
            job: Optional[Callable[[], Any]] = self._waiting.pop(key, None)
            if job is not None:
                self._running[key] = self._pool.submit(job)
        return {key: future.result() for key, future in done.items()}

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def close(self) -> None:
        self._waiting.clear()
        self._pool.shutdown(wait=False)


def _binomial(image: np.ndarray, axis: int) -> np.ndarray:
    """Smooth with 1-2-1 along an axis; the rim continues with its own value."""
    image = np.swapaxes(image, 0, axis)
    padded = np.concatenate([image[:1], image, image[-1:]])
    return np.swapaxes((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4, 0, axis)
